//! A migration between two hosts, as a transaction: before commit any failure leaves the source running, after it only the
//! destination runs.
//!
//! It knows neither containers nor HTTP: what leaves and what waits are [`ends::Leaving`] and [`ends::Waiting`]. It blocks: a
//! migration takes a thread on either side, and one for each of its data connections.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ends`] | the application that leaves, the container that waits |
//! | [`source`], [`destination`] | both sides of a migration |
//! | [`recover`] | what a daemon's start does about migrations that its predecessor left open |
//! | [`state`], [`journal`] | what is decided, in which order, and on disk |
//! | [`phase`], [`options`], [`cancel`] | what is done, how, and how long it may take |
//! | [`forecast`] | how one would go, before anything is sent |
//! | [`hooks`], [`progress`], [`report`], [`faults`] | who else is called and told |
//! | `wire`, `talk`, [`transport`] | messages, and connections that carry them |
//! | `phases` | how a phase is run: timed, limited, told |
//! | `images`, `chunk`, `files` | images, pages and files on their way |
//! | [`fetch`] | memory that follows, fetched by who fills it in |
//!
//! # A migration
//!
//! ```text
//!   source                                                   destination
//!   connect         Hello{wanted} ────────────────────────►  (journal: Preparing)
//!                   ◄──────────────────── Welcome{token}     data connections show the token
//!   image           Bytes ... ────────────────────────────►  only to make a container whose image is not there
//!   prepare         Passport ─────────────────────────────►  finds or makes the container, checks
//!   files           Files{running} Bytes ... ─────────────►  put back; again until little has changed
//!   ready           Ready ────────────────────────────────►  the restore is started, and waits
//!   rounds          Round, Bytes ... ─────────────────────►  room is made; again until the rest is small
//!                   ◄──────────── Get / Chunk on data connections, put in its place
//!                   ◄─────────────────────────── RoundDone
//!   pre-checkpoint  (journal: Frozen)
//!   freeze
//!   last round      Round{last}, Bytes ... ───────────────►  comes while the dump does
//!   last files      Files{frozen} Bytes ... ──────────────►
//!   dump            Image ... ────────────────────────────►  kept in memory
//!   post-checkpoint Dumped{memory} ───────────────────────►  pre-restore, restore
//!                   ◄──────────── Get / Chunk on data connections, as the restore reads
//!                   ◄──────────────────────────────── Held   (journal: Held)
//!   verify          Verify, Bytes ... ────────────────────►  compared, when asked for
//!                   ◄──────────────────────────── Verified
//!   commit          (fence, journal: Deciding)
//!                   Commit ───────────────────────────────►  (journal: Committed), released
//!                   ◄─────────────────────────── Committed
//!   serve           (only when memory is owed; journal: Serving, and Filling there)
//!                   ◄──────────── Get / Chunk on connections that the destination makes (from the last round on)
//!                   ◄──────────────────────────────── Here
//!   end             (journal: Committed), killed, (Done)     post-restore
//!   finish          ◄──────────────────────────── Finished
//!                   Settled ──────────────────────────────►
//! ```
//!
//! A commit that is not answered is asked for on new connections. A destination that has not committed by then never will.

#![forbid(unsafe_code)]

pub mod cancel;
mod chunk;
pub mod destination;
pub mod ends;
mod error;
pub mod faults;
pub mod fetch;
mod files;
pub mod forecast;
#[doc(hidden)]
pub mod fuzzing;
pub mod hooks;
mod id;
mod images;
pub mod journal;
pub mod options;
pub mod phase;
mod phases;
pub mod progress;
pub mod recover;
pub mod report;
pub mod source;
pub mod state;
mod talk;
pub mod transport;
mod wire;

pub use error::Error;
pub use id::{MigrationId, NotAnId};
pub use wire::WireError;
