//! A logging program (`binary://`): it reads the container's streams itself, from descriptors 3 and 4.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::unistd::pipe2;
use tokio::task::JoinHandle;

use super::uri::Binary;
use crate::child::{Child, Exit};
use crate::error::Error;
use crate::reaper::Reaper;

/// How long the program may take to be ready, and to end when its streams have.
const READY_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(10);
const TERM_LIMIT: Duration = Duration::from_secs(2);

/// The writing ends of a logger's two streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// A logging program at work.
#[derive(Debug)]
pub(crate) struct Logger {
    program: PathBuf,
    child: Arc<Child>,
    ended: JoinHandle<Exit>,
}

impl Logger {
    /// Starts the program and waits until it is ready.
    pub(crate) async fn start(
        binary: Binary,
        id: &str,
        namespace: &str,
        reaper: &Arc<Reaper>,
    ) -> Result<(Self, Streams), Error> {
        let environment = [("CONTAINER_ID", id.to_owned()), ("CONTAINER_NAMESPACE", namespace.to_owned())];
        let program = binary.program.clone();
        let starting = reaper.starting();
        let (pid, streams) = tokio::task::spawn_blocking(move || spawn(&binary, environment))
            .await?
            .map_err(|e| Error::io("start logger", &program, e))?;
        let child = Child::adopt(reaper, pid).map_err(|e| Error::io("wait for logger", &program, e))?;
        drop(starting);
        let child = Arc::new(child);
        let waiter = Arc::clone(&child);
        let ended = tokio::spawn(async move { waiter.exited().await });
        Ok((Self { program, child, ended }, streams))
    }

    /// Waits for its end, now that its streams have ended; hurries one that does not see that.
    pub(crate) async fn finish(mut self) {
        for (limit, signal) in [(END_LIMIT, libc::SIGTERM), (TERM_LIMIT, libc::SIGKILL)] {
            if let Ok(exit) = tokio::time::timeout(limit, &mut self.ended).await {
                return log::debug!("logger {:?} ended: {exit:?}", self.program);
            }
            log::warn!("logger {:?} goes on after the end of its streams: signal {signal}", self.program);
            // ESRCH: it has just ended.
            let _ = self.child.signal(signal);
        }
    }
}

fn spawn(binary: &Binary, environment: [(&str, String); 2]) -> std::io::Result<(i32, Streams)> {
    let (stdout_read, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr_read, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let (ready, ready_write) = pipe2(OFlag::O_CLOEXEC)?;
    let mut command = Command::new(&binary.program);
    command.args(&binary.arguments).env_clear().envs(environment);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
        .fd_mappings(vec![
            FdMapping { parent_fd: stdout_read, child_fd: 3 },
            FdMapping { parent_fd: stderr_read, child_fd: 4 },
            FdMapping { parent_fd: ready_write, child_fd: 5 },
        ])
        .map_err(std::io::Error::other)?;
    let mut child = command.spawn()?;
    drop(command); // and with it our copies of the program's descriptors
    if let Err(e) = wait_ready(ready, binary.must_say_ready) {
        child.kill()?;
        child.wait()?;
        return Err(e);
    }
    let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
    Ok((pid, Streams { stdout, stderr }))
}

/// The program says that it is ready by a byte, or by closing the pipe.
fn wait_ready(ready: OwnedFd, must_say: bool) -> std::io::Result<()> {
    let limit = PollTimeout::try_from(READY_LIMIT).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], limit)? == 0 {
        return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not say that it is ready"));
    }
    if std::fs::File::from(ready).read(&mut [0])? == 0 && must_say {
        return Err(std::io::Error::other("it ended before it was ready"));
    }
    Ok(())
}
