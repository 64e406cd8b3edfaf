//! Signals as something to read: all are blocked, and each waits in a descriptor until the loop takes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fastmig_control::Signal;

use crate::sys::{self, Mask};

/// A signal somebody sent to the init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    /// Whether the init caused it itself, as it does SIGPIPE by writing to a closed stream.
    pub(crate) own: bool,
}

/// The blocked signals, and the mask to give back to the application.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
    original: Mask,
}

impl Signals {
    /// Blocks every signal and opens the descriptor that reads them. The kernel keeps a blocked signal even for
    /// PID 1, which it otherwise spares those without a handler.
    pub(crate) fn block_all() -> nix::Result<Self> {
        let original = sys::swap_mask(Mask::MAX)?;
        Ok(Self { descriptor: sys::signal_descriptor(Mask::MAX)?, original })
    }

    /// The mask from before [`Self::block_all`].
    pub(crate) fn original(&self) -> Mask {
        self.original
    }

    /// The next signal, if one waits.
    pub(crate) fn next(&self) -> Option<Received> {
        // signalfd(2): 128 bytes each; the first word is the number, the fourth the sender.
        let mut info = [0; 128];
        let length = nix::unistd::read(&self.descriptor, &mut info).ok()?;
        let word = |at: usize| Some(u32::from_ne_bytes(*info[..length].get(at..)?.first_chunk()?));
        let signal = Signal::new(i32::try_from(word(0)?).ok()?).ok()?;
        Some(Received { signal, own: word(12)? == std::process::id() })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether a signal ends a container that has no application to forward it to: those a user stops things with.
pub(crate) fn ends_standby(signal: Signal) -> bool {
    matches!(signal.get(), libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM)
}
