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
//! | [`mark`] | what `state.json` says of it, so that nobody else decides |
//! | [`settle`] | the decision, when the process that began is gone |
//!
//! Fenced and held applications stay frozen whatever happens to our process: only [`Container::settle`] gets them on, and every
//! other operation is refused.
//!
//! [`Container::settle`]: crate::Container::settle

pub mod arrival;
pub mod departure;
pub mod mark;
pub mod settle;
pub mod ticket;

pub use fastmig_criu::{ImageSink, ImageSource, ProcessMemory};

pub use arrival::Arrival;
pub use departure::{Departure, Terms};
pub use mark::{Mark, Role};
pub use settle::Verdict;
pub use ticket::Ticket;
