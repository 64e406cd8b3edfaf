//! How a migration is told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// A handle on a migration under way; its copies are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flags: Arc<Flags>,
}

#[derive(Debug, Default)]
struct Flags {
    cancelled: AtomicBool,
    leaving: AtomicBool,
}

impl Cancel {
    /// Gives the migration up, as long as nothing is decided: the source runs on. Too late otherwise, and without effect.
    pub fn cancel(&self) {
        self.flags.cancelled.store(true, Ordering::Release);
    }

    /// The daemon ends: the migration is given up if it can be; if it waits for the destination's decision it returns
    /// undecided, for [`crate::recover`] to go on at the next start.
    pub fn leave(&self) {
        self.cancel();
        self.flags.leaving.store(true, Ordering::Release);
    }

    /// Whether somebody has asked for the end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flags.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.flags.leaving.load(Ordering::Acquire)
    }
}
