//! A warm container: an OCI container whose application can be checkpointed, stopped, restored or started
//! again while the container stays up.
//!
//! The shim and the runtime wrapper hold no mechanism of their own; both ask this library. It knows neither
//! containerd nor HTTP. All calls block, and every call of runc, CRIU and the init has a time limit.
//!
//! The files, in the order of a container's life; each of the first nine adds its operations to
//! [`Container`]:
//!
//! | file | what it does |
//! |---|---|
//! | `create` | rewrites the spec (`spec`), gives runc a bundle (`bundle`), looks the command up (`lookup`), calls runc |
//! | `attend` | what follows where runc itself creates, starts and waits |
//! | `start` | the application comes up: from scratch, from a checkpoint, or not yet |
//! | `exec` | sessions beside the application, limits |
//! | [`check`] | what would make a checkpoint fail, said beforehand |
//! | [`passport`] | what both ends of a migration compare before anything stops |
//! | `cost` | what moving an application's memory while it runs would cost now |
//! | [`checkpoint`], [`restore`] | the two main operations, step by step |
//! | `at_rest` | the memory of a checkpoint, taken in rounds; only what changed since the one before |
//! | [`migration`] | an application leaves for another host, or comes from one |
//! | `halt` | signals, pause, standby |
//! | `remove` | delete, also after a crash |
//! | [`keeper`] | the process that decides, by the container's [`policy`], what becomes of an application that has ended |
//! | [`container`] | what they all share: the container, its lock, its status |
//! | [`start_file`] | what an operator has said about its next starts |
//! | `oci_state`, [`names`] | what runc and the clients say of it |
//! | [`state`], [`start_options`], [`config`] | what is known of a container, what its creator decided, the host's settings |
//! | [`image`], `root_files` | a checkpoint on disk: CRIU's files, those of the root file system, and the manifest that makes them one |
//! | [`trace`] | the log of operations: each has one id in all that is told of it |
//! | `output` | where its client keeps what it has written |
//! | [`Resources`] | what an operation takes of the host |
//! | `checkpoints` | where the last one stands, and those that have a name |
//! | `subject` | what a dump is of, and what CRIU is told of it |
//! | `freeze` | an application that stands still, its guards, and the ways on |
//! | `recipient` | the container that takes one in, and what is done at CRIU's stages |
//! | `tree` | the application's processes below the init: numbers, freezer, rights, orphans, connections |
//! | [`runc`], `init`, `capabilities`, `logs` | those whom we call: runc, the init, CRIU |

mod at_rest;
mod attend;
mod bundle;
mod capabilities;
pub mod check;
pub mod checkpoint;
mod checkpoints;
mod clock;
pub mod config;
pub mod container;
mod cost;
mod create;
mod error;
mod exec;
mod files;
mod freeze;
mod halt;
mod hugetlb;
pub mod image;
mod init;
mod inside;
mod json_lines;
pub mod keeper;
mod logs;
mod lookup;
pub mod migration;
pub mod names;
mod oci_state;
mod output;
pub mod passport;
pub mod policy;
mod recipient;
mod remove;
mod resources;
pub mod restore;
mod root_files;
pub mod runc;
pub mod spec;
mod start;
pub mod start_file;
pub mod start_options;
pub mod state;
mod subject;
pub mod trace;
mod tree;

pub use clock::{now, parse_duration};
pub use config::{Config, Schedule};
pub use container::Container;
pub use cost::Cost;
pub use create::{CreateRequest, Prepared};
pub use error::{Error, Kind};
pub use exec::ExecRequest;
pub use oci_state::list as oci_list;
pub use resources::{Measured, Resources};
pub use runc::{StdioFds, Voice};
pub use state::{ApplicationState, Key};
