//! The memory of a running process tree: tracked, read, hashed.
//!
//! What processes write is seen from outside while they run, so that their memory can be sent before they are frozen, and in
//! the freeze only what was written since. [`Tracker`] says what there is to send and remembers what was; [`Reader`] reads it.
//! Nothing here knows of containers, images, hosts or protocols.
//!
//! | file | what it does |
//! |---|---|
//! | `types` | what a tracker is told, and what it says |
//! | `tracker` | a tree, over rounds |
//! | `process` | one process: what was sent, what that says now |
//! | `watch` | its writes, by either method (`runs`: the address space as it is registered, `places`: what soft-dirty bits do not tell) |
//! | `inject` | a userfaultfd out of it (`courier`: the child that fetches it, `halt`: threads stopped, `call`: a system call made) |
//! | `mappings`, `eligible` | its mappings; which of them are sent, and the areas around them |
//! | `scan`, `pagemap`, `zero_page` | its page tables |
//! | `direct` | whether devices write into its memory |
//! | `sharing` | what it has in common with its parent |
//! | `threads` | its identity, and where its stacks are |
//! | `huge` | huge pages, joined again |
//! | `shared` | shared memory, over rounds |
//! | `reader`, `hashes`, `extent` | its memory, read and hashed, and where it is |
//! | [`fill`] | memory that comes after its processes |
//! | `probe` | which method works here |
//! | [`spans`], [`parallel`] | sets of addresses; several threads at once |
//! | `sys` | system calls |
//!
//! What is sent are large private anonymous mappings that are nobody's stack, most memory of most programs, and shared memory that
//! is no file system's ([`SharedTracker`]). All else is left to CRIU, as is every mapping about which there is a doubt.
//!
//! A process notices nothing but a stop of a fraction of a millisecond when tracking begins, and what any stop does: a few calls,
//! `epoll_wait` among them, then return early with EINTR, as they do after SIGCONT or the freezer. While it is tracked,
//! adjacent mappings of which one is new are not joined; `mremap` of both at once fails, as it does wherever they differ. A mapping
//! that grows, moves or is protected stays one.

mod direct;
mod eligible;
mod error;
mod extent;
pub mod fill;
mod hashes;
mod huge;
mod inject;
mod mappings;
mod pagemap;
pub mod parallel;
mod places;
mod probe;
mod process;
mod reader;
mod runs;
mod scan;
mod shared;
mod sharing;
pub mod spans;
mod sys;
mod threads;
mod tracker;
mod types;
mod watch;
mod zero_page;

pub use error::{Error, InjectFailure, Unsupported};
pub use extent::{anonymous_spans, mapped_spans};
pub use hashes::page_hashes;
pub use huge::{join_huge_pages, HUGE_PAGE};
pub use mappings::private_mappings;
pub use probe::probe;
pub use reader::Reader;
pub use shared::{
    shared_hashes, shared_length, shared_page_hash, Births, SharedArea, SharedContent, SharedPages,
    SharedReader, SharedRound, SharedTracker,
};
pub use tracker::Tracker;
pub use types::{Area, Content, Cost, Last, Mapping, Method, Pages, Process, Round, Span};

/// Bytes of a page. Where they are larger, no method is found.
pub(crate) const PAGE: u64 = 4096;
/// The same, as lengths in our own memory are counted.
pub(crate) const PAGE_BYTES: usize = 4096;
