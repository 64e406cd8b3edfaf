//! What is told of a migration while it goes on.

use serde::{Deserialize, Serialize};

use crate::options::Strategy;
use crate::phase::Phase;
use crate::report::Round;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A phase begins.
    PhaseBegun {
        /// Which.
        phase: Phase,
    },
    /// A phase ended.
    PhaseEnded {
        /// Which.
        phase: Phase,
        /// How long it took.
        milliseconds: u64,
        /// Why it failed, if it did.
        failed: Option<String>,
    },
    /// A round of files has travelled.
    Files {
        /// Which, from 1.
        round: u32,
        /// Files, directories, links and deletions in it.
        entries: u64,
        /// Bytes of file content in it.
        bytes: u64,
    },
    /// It is chosen how memory travels.
    Strategy {
        /// How.
        strategy: Strategy,
        /// Why.
        why: String,
    },
    /// A round of memory has travelled while the application ran.
    Round(Round),
    /// The application gets less of the processor, for it writes faster than memory travels.
    Throttled {
        /// How much was taken away.
        percent: u32,
    },
    /// Some of the images has travelled; told a few times a second.
    Bytes {
        /// Bytes of images so far, as the application has them.
        raw: u64,
        /// Bytes that travelled for them.
        wire: u64,
        /// How many raw bytes it will be; nothing before all is dumped.
        expected: Option<u64>,
        /// Raw bytes per second since the last time.
        rate: u64,
    },
    /// The application runs at the destination, and so much of what it is owed is there; told a few times a second.
    Filling {
        /// Bytes that it is owed.
        owed: u64,
        /// Bytes of them that are there.
        bytes: u64,
        /// How often it had to wait for some of them.
        faults: u64,
        /// Since it runs there.
        milliseconds: u64,
    },
    /// It is not known how the destination decided: it is asked again and again, and the source stays stopped.
    Asking {
        /// How often it was asked so far.
        attempts: u32,
        /// Why there is no answer.
        reason: String,
    },
}

/// Who is told. Called by several threads; must not block for long.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn event(&self, _: Event) {}
}
