//! What CRIU sees of memory: it is started under a small library of ours (`criu-view`), whose other side this is.
//!
//! * A dump does not see what was sent beforehand: [`DumpView`] hides mappings and shared files.
//! * A restore finds memory that is filled already: CRIU is started early and waits for its request while a
//!   [`RestoreView`] has areas laid out in it and fills them; then it takes them as the memory of what it restores.
//! * What the images must say for that: [`images`].
//!
//! Library and engine share a table (`fastmig-criu-view-layout`), which this side reads and writes as a file.

mod areas;
mod commands;
mod dump;
pub mod images;
mod launch;
mod memory;
mod restore;
mod rseq;
mod segments;
mod table;

use std::io;
use std::time::Duration;

pub(crate) use launch::Passed;

pub use areas::{AreaSpec, Content, Placed, Span};
pub use dump::{DumpView, HiddenFile, HiddenMapping};
pub use restore::{Limits, RestoreView};
pub use rseq::rseq_areas;
pub use segments::SegmentSpec;

/// Why CRIU cannot be shown memory as it should be, or has not looked at it that way.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The table or the socket to the library failed.
    #[error("could not {what} for CRIU's view of memory")]
    Prepare {
        /// The step.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// More than there is room for.
    #[error("{count} {what} are more than CRIU's view of memory has room for ({most})")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
        /// How many there may be.
        most: u64,
    },
    /// Mappings, areas or spans that contradict each other or are no memory.
    #[error("the {what} {start:#x}-{end:#x} of process {process} is wrong: {why}")]
    Wrong {
        /// Mapping, area, span, ...
        what: &'static str,
        /// The process.
        process: i32,
        /// The first address.
        start: u64,
        /// The first address after it.
        end: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A hidden mapping that CRIU has not asked for as a whole: it may not know it, or see other bounds.
    #[error(
        "CRIU has asked for the hidden mapping {start:#x}-{end:#x} of process {pid} up to {covered:#x} only"
    )]
    NotAsked {
        /// The process.
        pid: i32,
        /// The first address.
        start: u64,
        /// The first address after it.
        end: u64,
        /// Up to where it was asked for.
        covered: u64,
        /// All such, unless it is so with every one that was hidden.
        all: Vec<HiddenMapping>,
    },
    /// A hidden file whose content CRIU has not asked for.
    #[error("CRIU has not asked for the hidden shared memory with inode {inode}")]
    FileNotAsked {
        /// The file's inode.
        inode: u64,
    },
    /// A mapping that CRIU has not taken exactly once from what was filled.
    #[error("CRIU has taken the mapping {start:#x}-{end:#x} of process {process} {times} times, not once")]
    NotTaken {
        /// The process.
        process: i32,
        /// The first address.
        start: u64,
        /// The first address after it.
        end: u64,
        /// How often; more than 4 billions when it asked in a way that could not be answered.
        times: u64,
        /// All such, unless it is so with every one that was arranged.
        all: Vec<HiddenMapping>,
    },
    /// A segment that CRIU has not taken exactly once.
    #[error("CRIU has taken shared memory {id} {times} times, not once")]
    SegmentNotTaken {
        /// The number in the name of its image.
        id: u64,
        /// How often; more than 4 billions when it asked in a way that could not be answered.
        times: u64,
    },
    /// CRIU is gone, or waits for commands no more.
    #[error(
        "CRIU, which waits for memory to be filled, does not answer a command to {command}: it has ended"
    )]
    Gone {
        /// What was asked.
        command: &'static str,
    },
    /// The library did not answer in time.
    #[error("CRIU, which waits for memory to be filled, did not {command} within {limit:?} and is killed")]
    TimedOut {
        /// What was asked.
        command: &'static str,
        /// The time that it had.
        limit: Duration,
    },
    /// The library could not do it.
    #[error("CRIU, which waits for memory to be filled, could not {command}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl ViewError {
    /// The mappings that it is about, where others are as they should be.
    #[must_use]
    pub fn mappings(&self) -> &[HiddenMapping] {
        match self {
            Self::NotAsked { all, .. } | Self::NotTaken { all, .. } => all,
            _ => &[],
        }
    }
}
