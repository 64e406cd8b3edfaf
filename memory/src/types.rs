//! What a tracker is told, and what it says.

use std::time::Duration;

/// How writes are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Asynchronous write-protection by userfaultfd, and `PAGEMAP_SCAN` (Linux 6.7).
    WriteProtect,
    /// Soft-dirty bits: `clear_refs` and `pagemap`. Each round stops the processes for as long as a scan takes.
    SoftDirty,
}

/// A process of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its pid on the host.
    pub host: i32,
    /// Its pid inside, by which everything else names it.
    pub id: i32,
    /// The inner pid of its parent, if that is in the tree.
    pub parent: Option<i32>,
}

/// Addresses from `start` to before `end`, page aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// After the last byte.
    pub end: u64,
}

/// Where the receiver keeps one buffer: a maximal run of adjacent private anonymous mappings of one kind, of which one at least is sent.
/// What `mprotect` or growth does inside changes nothing for the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// The process, by its inner pid.
    pub process: i32,
    /// The first byte.
    pub start: u64,
    /// After the last byte.
    pub end: u64,
    /// Its mappings were made without reserving memory for them (`nr`).
    pub no_reserve: bool,
    /// Its mappings are to have no huge pages (`nh`).
    pub no_huge: bool,
}

/// Pages of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// The process, by its inner pid.
    pub process: i32,
    /// Sorted and disjoint.
    pub spans: Vec<Span>,
}

/// What a round costs the processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// The longest that any process was stopped.
    pub stop: Duration,
    /// From beginning to end of the round.
    pub scan: Duration,
    /// Processes that were stopped to begin tracking them.
    pub injected: usize,
    /// Processes that cannot be tracked, or not yet: nothing of them is sent.
    pub untracked: usize,
}

/// What there is to send while the processes run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// All areas there are now. What was sent for an address that no area has any more is void.
    pub areas: Vec<Area>,
    /// To be read and sent; counts as sent.
    pub pages: Vec<Pages>,
    /// Sent earlier, and not there any more: zeros to the process, or nothing. Never also in `pages`.
    pub forgotten: Vec<Pages>,
    /// Of a process, what a child of it has in common with it. Several for one that has several children.
    pub common: Vec<Pages>,
    /// What it cost.
    pub cost: Cost,
}

/// What there is to send of the frozen processes, and what the receiver then has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last {
    /// To be read and sent.
    pub pages: Vec<Pages>,
    /// The mappings whose whole content the receiver then has. Everything else is left to CRIU.
    pub mappings: Vec<Mapping>,
    /// Sent earlier, and not of the content of the mappings any more.
    pub discard: Vec<Pages>,
    /// For each process its `smaps` as of the latest round, reduced to the lines of addresses and of flags.
    pub smaps: Vec<(i32, Vec<u8>)>,
    /// What it cost.
    pub cost: Cost,
}

/// A mapping whose content the receiver has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The process, by its inner pid.
    pub process: i32,
    /// The first byte.
    pub start: u64,
    /// After the last byte.
    pub end: u64,
    /// Where its content is.
    pub content: Content,
}

/// Where the content of a mapping is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// What was sent for the process; zeros where nothing was.
    Own,
    /// Shared with the mapping at the same place of the parent, which is in the same list, but for these.
    Inherited {
        /// Pages that differ: what was sent for the process itself.
        own: Vec<Span>,
        /// Pages that the parent has and the process has not: zeros.
        absent: Vec<Span>,
    },
}
