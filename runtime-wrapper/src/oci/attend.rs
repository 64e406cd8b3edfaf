//! Beside `run` in the foreground, where this program becomes runc: brings the application up, and clears away after
//! runc has deleted the container.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use command_fds::{CommandFdExt, FdMapping};
use fastmig_engine::{Container, Error, Key, Prepared};

use super::Runtime;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    namespace_of: String,
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
        if !self.orphan {
            let spawned =
                Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).arg("--orphan").spawn();
            let spawned = spawned.map_err(|e| Error::stdio("start a process beside runc", e));
            return runtime.conclude(spawned.map(|_| ExitCode::SUCCESS));
        }
        let attended = Key::new(&self.namespace_of, &self.id)
            .and_then(|key| Container::attend(&runtime.config, &key, self.runc, !self.keep));
        runtime.conclude(attended.map(|()| ExitCode::SUCCESS))
    }
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
    let mut attendant = Command::new("/proc/self/exe");
    attendant.args(["attend", key.namespace(), key.id(), &std::process::id().to_string()]);
    if keep {
        attendant.arg("--keep");
    }
    // A signal from the terminal is runc's.
    attendant.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    prepared.leave()?;
    // It must not be runc's child when we are runc: crun ends only after the last of its children.
    let spawned = attendant.status().map_err(|e| Error::stdio("start a process beside runc", e))?;
    if !spawned.success() {
        return Ok(ExitCode::FAILURE);
    }

    let mut runc = runtime.command();
    runc.args(arguments);
    let mappings =
        preserved.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    runc.fd_mappings(mappings.collect())
        .map_err(|e| Error::stdio("pass descriptors to runc", std::io::Error::other(e)))?;
    Ok(runtime.become_it(runc))
}
