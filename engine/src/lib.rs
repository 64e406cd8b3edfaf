//! A warm container: an OCI container whose application can be checkpointed, stopped, restored or started
//! again while the container stays up.
//!
//! The shim and the runtime wrapper hold no mechanism of their own; both ask this library. It knows neither
//! containerd nor HTTP. All calls block, and every call of runc, CRIU and the init has a time limit.
//!
//! The flow through the files, in the order of a container's life:
//!
//! | file | what it does |
//! |---|---|
//! | [`config`] | where things are, and how long they may take |
//! | [`spec`] | the OCI spec, rewritten so that FastMig's init stands above the image's command |
//! | [`container`] | the container and its operations: the one entry for shim and wrapper |
//! | [`runc`] | runc as a command with a time limit |
//! | [`init`] | the conversation with the init inside |
//! | [`application`] | what is dumped and restored: the tree below the init, and its freezer cgroup |
//! | [`checkpoint`], [`restore`] | the two operations, step by step |
//! | [`image`] | a checkpoint on disk: CRIU's files and the manifest that makes them one |
//! | [`state`] | what is known of a container across processes, and the lock of who may operate |

mod application;
mod capabilities;
mod cgroup;
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod container;
mod error;
pub mod image;
mod init;
mod logs;
mod lookup;
mod privilege;
pub mod restore;
pub mod runc;
pub mod spec;
pub mod state;
mod watchdog;

pub use config::Config;
pub use container::{Container, CreateRequest, ExecRequest, StdioFds};
pub use error::{Error, Kind};
pub use state::{ApplicationState, Key};
