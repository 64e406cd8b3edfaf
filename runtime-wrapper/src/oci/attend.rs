//! Beside `run` in the foreground, where this program becomes runc: brings the application up, and clears away after
//! runc has deleted the container.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use command_fds::{CommandFdExt, FdMapping};
use fastmig_engine::{runc, Container, Error, Key, Prepared};

use super::Runtime;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The container
    container_namespace: String,
    id: String,
    /// runc's pid, which was ours before
    runc: i32,
    /// runc leaves the container when it ends
    #[arg(long)]
    keep: bool,
    /// Nobody's child any more
    #[arg(long)]
    orphan: bool,
}

impl Arguments {
    pub(crate) fn run(self, runtime: &Runtime) -> ExitCode {
        runtime.conclude(if self.orphan { self.attend(runtime) } else { step_aside() })
    }

    fn attend(&self, runtime: &Runtime) -> Result<ExitCode, Error> {
        let key = Key::new(&self.container_namespace, &self.id)?;
        Container::attend(&runtime.config, &key, self.runc, !self.keep)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Starts ourselves again and ends: the new process is nobody's child, and has none of the descriptors that were passed
/// on to the container. Whoever waits for their other ends must see the application close them.
fn step_aside() -> Result<ExitCode, Error> {
    for number in open_descriptors() {
        // One that is closed already was only for the look.
        let _ = nix::unistd::close(number);
    }
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let positionals = arguments.iter().position(|word| word == "attend").map_or(0, |index| index + 1);
    arguments.insert(positionals, "--orphan".into());
    Command::new("/proc/self/exe").args(arguments).spawn().map_err(cannot_start)?;
    Ok(ExitCode::SUCCESS)
}

fn open_descriptors() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect()
}

/// Becomes `runc run`, with an attendant beside it. `options` come before those of the making.
pub(crate) fn become_runc(
    runtime: &Runtime,
    mut prepared: Prepared,
    key: &Key,
    options: &[&str],
    keep: bool,
) -> Result<ExitCode, Error> {
    let preserved = prepared.take_descriptors();
    let mut arguments: Vec<OsString> = runtime.global.arguments();
    arguments.push("run".into());
    arguments.extend(options.iter().map(OsString::from));
    arguments.extend(prepared.arguments(preserved.len()));
    prepared.announce()?;
    // It must not be runc's child when we are runc: crun ends only after the last of its children.
    let started = attendant(runtime, key, keep).status().map_err(cannot_start)?;
    if !started.success() {
        return Ok(ExitCode::FAILURE);
    }
    prepared.leave();

    let mut command = runtime.command();
    command.args(arguments);
    let mappings = preserved
        .into_iter()
        .zip(runc::FIRST_PRESERVED..)
        .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command
        .fd_mappings(mappings.collect())
        .map_err(|e| Error::stdio("pass descriptors to runc", std::io::Error::other(e)))?;
    Ok(runtime.become_it(command))
}

/// It says what goes wrong where runc would.
fn attendant(runtime: &Runtime, key: &Key, keep: bool) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(runtime.global.runc_log().arguments()).arg("attend");
    if keep {
        command.arg("--keep");
    }
    command.args(["--", key.namespace(), key.id(), &std::process::id().to_string()]);
    // A signal from the terminal is runc's.
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    command
}

fn cannot_start(source: std::io::Error) -> Error {
    Error::stdio("start a process beside runc", source)
}
