//! `exec`: runc's own, after the session's pid has been kept out of the way of a restore.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::Runtime;

/// Read only to find the container; runc gets everything as it is.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    console_socket: Option<OsString>,
    #[arg(long)]
    pidfd_socket: Option<OsString>,
    #[arg(long)]
    cwd: Option<OsString>,
    #[arg(long, short)]
    env: Vec<OsString>,
    #[arg(long, short)]
    tty: bool,
    #[arg(long, short)]
    user: Option<OsString>,
    #[arg(long, short = 'g')]
    additional_gids: Vec<OsString>,
    #[arg(long, short)]
    process: Option<OsString>,
    #[arg(long, short)]
    detach: bool,
    #[arg(long)]
    pid_file: Option<OsString>,
    #[arg(long)]
    process_label: Option<OsString>,
    #[arg(long)]
    apparmor: Option<OsString>,
    #[arg(long)]
    no_new_privs: bool,
    #[arg(long, short)]
    cap: Vec<OsString>,
    #[arg(long)]
    preserve_fds: Option<OsString>,
    #[arg(long)]
    cgroup: Vec<OsString>,
    #[arg(long)]
    ignore_paused: bool,
    /// The container's id
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("exec", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Ok(Some(container)) = runtime.known(&arguments.id) {
        // A container that has ended, or not started, is runc's to refuse.
        if let Err(e) = container.make_room_for_session() {
            tracing::debug!(container = arguments.id, error = %e.report(), "the session's pid is left to chance");
        }
    }
    runtime.hand_over("exec", raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_found_behind_the_options() {
        let words = ["exec", "-t", "-e", "A=1", "--user", "1:1", "--cwd=/", "web", "ls", "-l", "--help"];
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert_eq!((arguments.id.as_str(), arguments.command.len()), ("web", 3));
    }
}
