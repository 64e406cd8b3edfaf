//! A migration, as one container sees it: an application leaves ([`Departure`]) or comes ([`Arrival`]), and until it is decided
//! where it runs it can go either way.
//!
//! ```text
//!   source        Running --freeze--> Frozen --dump--> Dumped --fence--> Fenced --end--> Standby
//!                    ^                   |                |                 |
//!                    +------ resume -----+----------------+-----------------+
//!
//!   destination   Standby --restore--> Held --release--> Running
//!                    ^                   |
//!                    +----- abandon -----+
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | [`ticket`] | what the destination must know before the freeze, so that its CRIU can be started |
//! | [`departure`] | the source |
//! | [`arrival`] | the destination |
//! | `tracked`, `filled` | memory that travels in rounds while the application runs, at either end |
//! | `headroom` | how much more memory the container that waits may hold |
//! | `shared` | shared memory among it |
//! | `withheld`, [`owed`], `filling`, [`filler`], [`owing`] | memory that follows an application that has moved |
//! | `throttle` | an application that writes too fast gets less of the processor |
//! | `fingerprint` | the content of all memory, compared |
//! | `roomy` | huge pages at the destination, ahead of what comes |
//! | `plan`, `spool`, `early` | where a round belongs; CRIU's small images, on the host's tmpfs, and which of them leave before the others |
//! | [`mark`] | what `state.json` says of it, so that nobody else decides |
//! | [`settle`] | the decision, when the process that began is gone |
//!
//! Fenced and held applications stay frozen whatever happens to our process: only [`Container::settle`] gets them on, and every
//! other operation is refused.
//!
//! [`Container::settle`]: crate::Container::settle

pub mod arrival;
pub mod departure;
mod early;
pub(crate) mod filled;
pub mod filler;
pub(crate) mod filling;
mod fingerprint;
mod headroom;
pub mod mark;
pub mod owed;
pub mod owing;
pub(crate) mod plan;
mod roomy;
pub mod settle;
mod shared;
mod spool;
pub(crate) mod throttle;
pub mod ticket;
pub(crate) mod tracked;
mod withheld;

pub use fastmig_criu::{ImageSink, ImageSource, ProcessMemory};

pub use arrival::Arrival;
pub use departure::{Departure, Terms};
pub use filled::Room;
pub(crate) use fingerprint::rseq_pages;
pub use mark::{Mark, Role};
pub use owed::{Fetch, OwedMemory};
pub use owing::Owing;
pub use settle::Verdict;
pub(crate) use throttle::Throttle;
pub use ticket::Ticket;
pub(crate) use tracked::processes;
pub use tracked::{trackable, Round, RoundMemory};

/// How an application's memory travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// While it stands still, through streams.
    Stream,
    /// In rounds while it runs, and the rest while it stands still.
    Rounds,
}
