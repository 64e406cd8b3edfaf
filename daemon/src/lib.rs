//! The node daemon: answers for the containers of this host over HTTP, and moves their applications to other hosts.
//!
//! The files, in the order in which a call meets them:
//!
//! | file | what it does |
//! |---|---|
//! | [`command_line`] | what the program is asked: to run, or to make and exchange certificates |
//! | [`run`] | the daemon's life, from its lock to SIGTERM |
//! | [`daemon`] | what all parts share |
//! | `server` | who is let in |
//! | [`pki`] | by which certificate, and how that is got |
//! | `http` | what was asked, and the answers |
//! | [`operations`] | what is done and was done; on disk, once per idempotency key |
//! | `work` | the work of each operation on this host |
//! | [`migrations`], [`ends`] | applications that leave and arrive |
//! | [`filler`] | memory that follows an application, fetched by a process of its own |
//! | [`inventory`], [`checkpoints`] | what there is |
//! | `watch` | changes of containers that nobody asked for here |
//! | `decisions` | what the policies of containers decide, told; their keepers, looked after |
//! | `periodic` | checkpoints that nobody asks for |
//! | [`events`], [`metrics`] | what happens, and what is counted |
//! | `telemetry` | what the daemon tells of itself |
//! | [`failure`], `start` | why not |
//! | `files`, `task` | files for root alone, and threads that may block |

#![forbid(unsafe_code)]

pub mod checkpoints;
pub mod command_line;
pub mod daemon;
mod decisions;
pub mod ends;
pub mod events;
pub mod failure;
mod files;
pub mod filler;
mod http;
pub mod inventory;
pub mod metrics;
pub mod migrations;
pub mod operations;
mod periodic;
pub mod pki;
pub mod run;
mod server;
mod start;
mod task;
mod telemetry;
mod watch;
mod work;

pub use start::StartError;
