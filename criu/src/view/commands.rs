//! Commands to the library, one at a time, each with its answer within the limit.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastmig_criu_view_layout::command;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    recvmsg, send, setsockopt, shutdown, socketpair, sockopt, AddressFamily, ControlMessageOwned, MsgFlags,
    Shutdown, SockFlag, SockType,
};
use nix::unistd::Pid;

use super::ViewError;

type Words = [u64; command::WORDS];

/// Our end of the socket.
#[derive(Debug)]
pub(super) struct Commands {
    socket: OwnedFd,
    /// The library's end, until CRIU is started with it.
    other_end: Mutex<Option<OwnedFd>>,
    limit: Duration,
}

impl Commands {
    pub(super) fn new(limit: Duration) -> Result<Self, ViewError> {
        let failed =
            |errno: nix::errno::Errno| ViewError::Prepare { what: "make the socket", source: errno.into() };
        let (socket, other_end) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(failed)?;
        // Each answer says who sends it: the process that has the areas.
        setsockopt(&socket, sockopt::PassCred, &true).map_err(failed)?;
        Ok(Self { socket, other_end: Mutex::new(Some(other_end)), limit })
    }

    /// The library's end, once.
    pub(super) fn take_other_end(&self) -> Option<OwnedFd> {
        self.other_end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends a command and hears the answer, and whose it is; `what` says for people what was asked.
    pub(super) fn ask(&self, what: &'static str, words: Words) -> Result<(Words, Pid), ViewError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)
            .map_err(|_| ViewError::Gone { command: what })?;
        // An answer that comes too late would be taken for that of the next command.
        self.wait(what).inspect_err(|_| self.end())?;
        let (answer, process) = self.hear(what)?;
        if answer[0] != 0 {
            let number = i32::try_from(answer[0]).unwrap_or(libc::EIO);
            return Err(ViewError::Refused { command: what, source: io::Error::from_raw_os_error(number) });
        }
        Ok((answer, process))
    }

    fn end(&self) {
        if let Err(error) = shutdown(self.socket.as_raw_fd(), Shutdown::Both) {
            tracing::debug!(%error, "ending the commands to criu");
        }
    }

    fn wait(&self, command: &'static str) -> Result<(), ViewError> {
        let limit = self.limit;
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ViewError::TimedOut { command, limit });
            }
            let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(ViewError::Prepare { what: "wait", source: errno.into() }),
            }
        }
    }

    fn hear(&self, command: &'static str) -> Result<(Words, Pid), ViewError> {
        let gone = || ViewError::Gone { command };
        let mut bytes = [0_u8; command::WORDS * 8];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!(libc::ucred);
        let message =
            recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
                .map_err(|_| gone())?;
        let sender = message.cmsgs().map_err(|_| gone())?.find_map(|part| match part {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
            _ => None,
        });
        let complete = message.bytes == command::WORDS * 8;
        let sender = sender.filter(|pid| complete && *pid > 0).ok_or_else(gone)?;
        let mut words = [0; command::WORDS];
        for (word, part) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        Ok((words, Pid::from_raw(sender)))
    }
}
