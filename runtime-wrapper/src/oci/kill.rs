//! `kill`: the init passes signals on, but for two it cannot.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::Runtime;

#[derive(Debug, Parser)]
struct Arguments {
    /// To every process in the container
    #[arg(long, short)]
    all: bool,
    /// The container's id
    id: String,
    /// A name, with or without SIG, or a number
    #[arg(default_value = "TERM", allow_hyphen_values = true)]
    signal: String,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("kill", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let Some(signal) = ours_to_send(&arguments.signal) else { return runtime.hand_over("kill", raw) };
    runtime.on(&arguments.id, "kill", raw, |container| container.kill(signal, arguments.all))
}

/// SIGSTOP, which no init can pass on, and SIGKILL, after which a frozen application must be thawed to end.
fn ours_to_send(signal: &str) -> Option<i32> {
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    [("STOP", libc::SIGSTOP), ("KILL", libc::SIGKILL)]
        .into_iter()
        .find(|(word, number)| name == *word || name == number.to_string())
        .map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_signals_are_ours_however_they_are_spelt() {
        for text in ["KILL", "kill", "SIGKILL", "9"] {
            assert_eq!(ours_to_send(text), Some(libc::SIGKILL), "{text}");
        }
        assert_eq!(ours_to_send("19"), Some(libc::SIGSTOP));
        for text in ["TERM", "15", "RTMIN+1", "SIGFOO", "", "0"] {
            assert_eq!(ours_to_send(text), None, "{text}");
        }
    }
}
