//! What `state.json` says of a migration under way.

use serde::{Deserialize, Serialize};

use crate::state::ProcessMark;

/// Which end of it a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its application leaves.
    Leaving,
    /// An application comes.
    Arriving,
}

/// A migration under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name.
    pub id: String,
    /// Which end this is.
    pub role: Role,
    /// Nobody but [`crate::Container::settle`] may touch the application: it may run elsewhere. Otherwise a mark whose maker
    /// is gone means nothing.
    pub fenced: bool,
    /// The CRIU that holds what was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) criu: Option<ProcessMark>,
    /// The process that brings what was restored the memory that it misses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filler: Option<ProcessMark>,
}

impl Mark {
    pub(crate) fn new(id: &str, role: Role) -> Self {
        Self { id: id.into(), role, fenced: false, criu: None, filler: None }
    }
}
