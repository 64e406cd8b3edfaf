//! What FastMig changes on a host, and takes back.
//!
//! A plan is a list of files as they should be. Each change is written into a journal before it is made, with a copy of
//! what was there: a run that fails takes back what it did, and one that was killed is taken back by the next.
//!
//! | file | what it does |
//! |---|---|
//! | `things` | the list of what is installed, one file each: programs, settings, the clients' configurations |
//! | `plan` | what of it this host still lacks |
//! | `install`, `uninstall` | the two commands |
//! | `journal` | what was done, and what is being done |
//! | `undo` | one change taken back, unless somebody else has changed the file since |
//! | `site` | the tree that all this happens in, and the rules by which a file is replaced there |
//! | `resolve` | where a path leads in that tree, and never out of it |
//! | `consumer` | asks containerd and dockerd what they think of a file before it is theirs |
//! | `diff` | a change as people read it |

mod consumer;
mod diff;
mod error;
mod install;
mod journal;
mod plan;
mod resolve;
mod site;
mod things;
mod undo;
pub mod uninstall;

pub use error::Error;
pub use install::{install, preview};
pub use plan::{Change, Plan};
pub use site::Site;
pub use things::Source;

use serde::Serialize;

/// What a command has done.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// A line for each change.
    pub changes: Vec<String>,
    /// What was left alone, and why.
    pub notes: Vec<String>,
    /// Services that must be restarted before they take notice.
    pub restart: Vec<String>,
}
