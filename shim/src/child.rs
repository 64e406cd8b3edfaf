//! One process of a container, which the shim as the subreaper is the parent of.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::wait::{waitid, Id, WaitPidFlag, WaitStatus};
use time::OffsetDateTime;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use crate::reaper::{Claim, Reaper};
use crate::sys;

/// What the stock shim reports of a process whose end it could not learn.
const UNKNOWN_STATUS: u32 = 255;

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code, or 128 and the signal that killed it.
    pub(crate) status: u32,
    pub(crate) at: OffsetDateTime,
}

impl Exit {
    /// The end of a process of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { status: UNKNOWN_STATUS, at: OffsetDateTime::now_utc() }
    }
}

/// A process of a container. Its pid stays its own until [`Child::exited`] has returned.
#[derive(Debug)]
pub(crate) struct Child {
    pidfd: AsyncFd<OwnedFd>,
    /// Until it is reaped: then its number may be another's.
    claim: Mutex<Option<Claim>>,
}

impl Child {
    /// Takes over the wait for `pid`. The caller holds [`Reaper::starting`] since before it was started.
    pub(crate) fn adopt(reaper: &Arc<Reaper>, pid: i32) -> io::Result<Self> {
        let claim = reaper.claim(pid);
        let pidfd = sys::watch(sys::pidfd_open(pid)?, Interest::READABLE)?;
        Ok(Self { pidfd, claim: Mutex::new(Some(claim)) })
    }

    /// Waits for its end and reaps it. To be called once.
    pub(crate) async fn exited(&self) -> Exit {
        let status = match self.reap().await {
            Ok(status) => status,
            Err(e) => {
                log::error!("the exit status of a process is lost: {e}");
                UNKNOWN_STATUS
            }
        };
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        Exit { status, at: OffsetDateTime::now_utc() }
    }

    async fn reap(&self) -> io::Result<u32> {
        loop {
            let mut guard = self.pidfd.readable().await?;
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)? {
                WaitStatus::Exited(_, code) => return Ok(u32::try_from(code).unwrap_or(UNKNOWN_STATUS)),
                WaitStatus::Signaled(_, signal, _) => {
                    return Ok(u32::try_from(128 + signal as i32).unwrap_or(UNKNOWN_STATUS))
                }
                _ => guard.clear_ready(),
            }
        }
    }

    /// Sends it a signal; `ESRCH` when it has ended.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[expect(clippy::zombie_processes, reason = "the child under test reaps it")]
    fn spawn(script: &str) -> Child {
        let process = Command::new("sh").args(["-c", script]).spawn().unwrap();
        Child::adopt(&Arc::default(), i32::try_from(process.id()).unwrap()).unwrap()
    }

    async fn run(script: &str) -> Exit {
        spawn(script).exited().await
    }

    #[tokio::test]
    async fn an_exit_code_is_reported_as_it_is() {
        assert_eq!(run("exit 0").await.status, 0);
        assert_eq!(run("exit 7").await.status, 7);
        assert_eq!(run("sleep 0.2; exit 255").await.status, 255);
    }

    #[tokio::test]
    async fn a_signal_is_reported_as_128_and_more() {
        assert_eq!(run("kill -SEGV $$").await.status, 128 + 11);
    }

    #[tokio::test]
    async fn a_child_takes_signals_until_it_has_ended() {
        let child = spawn("exec sleep 60");
        child.signal(libc::SIGTERM).unwrap();
        assert_eq!(child.exited().await.status, 128 + 15);
        assert_eq!(child.signal(libc::SIGTERM).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
