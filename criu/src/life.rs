//! Whether a process of ours lives, asked from any thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use rustix::process::{pidfd_open, Pid, PidfdFlags};

/// Tells whether a process lives, and never takes another one for it.
#[derive(Debug)]
pub struct Life(OwnedFd);

impl Life {
    pub(crate) fn of(child: &Child) -> io::Result<Self> {
        Ok(Self(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?))
    }

    /// Waits for its end; whether that came by `deadline`.
    pub(crate) fn until_over(&self, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether it has ended. Costs one system call.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut watched, PollTimeout::ZERO), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn who_was_killed_is_over_before_anybody_waits_for_it() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let life = Life::of(&child).unwrap();
        assert!(!life.is_over());
        child.kill().unwrap();
        let begun = std::time::Instant::now();
        while !life.is_over() {
            assert!(begun.elapsed().as_secs() < 10, "it is said to live");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(life.is_over());
    }
}
