//! `create`, and the options that it shares with `run` and `restore`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser};
use fastmig_engine::runc::FIRST_PRESERVED;
use fastmig_engine::start_options::StartMode;
use fastmig_engine::{Container, CreateRequest, Error, StdioFds};

use super::{absolute, Runtime};

/// How a container is made.
#[derive(Debug, Clone, Args)]
pub(crate) struct Making {
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// The socket that the terminal's master is sent to
    #[arg(long, value_name = "FILE")]
    console_socket: Option<PathBuf>,
    /// Where the pid of the container's PID 1 is written
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Do not use pivot_root (a ramdisk)
    #[arg(long)]
    no_pivot: bool,
    /// Do not make a session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// So many of our descriptors, from 3 on, are the command's too
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u16,
}

impl Making {
    fn bundle(&self) -> PathBuf {
        absolute(self.bundle.as_deref().unwrap_or(Path::new(".")))
    }

    /// Whether there is anything to make a container from.
    pub(crate) fn has_bundle(&self) -> bool {
        self.bundle().join("config.json").exists()
    }

    /// What the engine needs to know. The caller's streams become the container's.
    pub(crate) fn request(
        &self,
        runtime: &Runtime,
        id: &str,
        start: Option<StartMode>,
    ) -> Result<CreateRequest, Error> {
        Ok(CreateRequest {
            key: runtime.key(id)?,
            bundle: self.bundle(),
            runc: runtime.options(),
            voice: runtime.voice(),
            stdio: StdioFds {
                stdin: Some(own(io::stdin().as_fd())?),
                stdout: Some(own(io::stdout().as_fd())?),
                stderr: Some(own(io::stderr().as_fd())?),
            },
            console_socket: self.console_socket.clone(),
            no_pivot_root: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserved: preserved(self.preserve_fds)?,
            start,
            log: None,
            pid_file: self.pid_file.as_deref().map(absolute),
        })
    }
}

fn own(fd: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned().map_err(|e| Error::stdio("keep a standard stream", e))
}

/// Copies of our descriptors from 3 on.
fn preserved(count: u16) -> Result<Vec<OwnedFd>, Error> {
    use rustix::process::{getpid, pidfd_getfd, pidfd_open, PidfdFlags, PidfdGetfdFlags};
    let failed =
        |e: rustix::io::Errno| Error::stdio("keep the descriptors that --preserve-fds names", e.into());
    if count == 0 {
        return Ok(Vec::new());
    }
    // The copies must not take the numbers that are still to be copied.
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty()).map_err(failed)?;
    (FIRST_PRESERVED..FIRST_PRESERVED + i32::from(count))
        .map(|number| pidfd_getfd(&ourselves, number, PidfdGetfdFlags::empty()).map_err(failed))
        .collect()
}

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    making: Making,
    /// The new container's id
    id: String,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    if !runtime.may_do_more() {
        return runtime.hand_over("create", raw);
    }
    let arguments: Arguments = match runtime.parse("create", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    runtime.conclude(create(runtime, &arguments))
}

fn create(runtime: &Runtime, arguments: &Arguments) -> Result<ExitCode, Error> {
    let request = arguments.making.request(runtime, &arguments.id, None)?;
    Container::create(runtime.config.clone(), request)?;
    Ok(ExitCode::SUCCESS)
}
