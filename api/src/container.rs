//! A container, as the daemon sees it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::migration::Side;
use crate::policy::Policy;

/// What a container's application is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Application {
    /// The container is created and not started.
    Created,
    /// It runs (or is frozen by a pause).
    Running,
    /// The container is up without it.
    Standby,
    /// It is being restored.
    Restoring,
    /// The container has ended.
    Ended,
}

impl std::fmt::Display for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Standby => "standby",
            Self::Restoring => "restoring",
            Self::Ended => "ended",
        })
    }
}

/// How a container stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its namespace: containerd's, or one made of its client's state directory.
    pub namespace: String,
    /// What its client calls it.
    pub names: Vec<String>,
    /// Whether FastMig's init stands above its command.
    pub warm: bool,
    /// Why not, when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<String>,
    /// Host pid of its PID 1.
    pub pid: i32,
    /// What the application is doing.
    pub application: Application,
    /// The application's root, as the container counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_pid: Option<i32>,
    /// How often an application came up in it, started or restored.
    pub runs: u32,
    /// Whether it is paused.
    pub paused: bool,
    /// Where the last complete checkpoint stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<String>,
    /// The last failed operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
    /// What decides about its application when that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// How often the daemon checkpoints it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The operation that is at work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The migration that it takes part in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrating: Option<Migrating>,
}

/// How often a container is checkpointed by itself, and how many of these checkpoints stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// Seconds from one to the next.
    pub every: u64,
    /// How many stay.
    pub keep: u32,
}

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// `checkpoint`, `restore`, ...
    pub operation: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
}

/// A container's part in a migration under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Migrating {
    /// The migration.
    pub id: String,
    /// Whether the application leaves or arrives.
    pub side: Side,
    /// The other host.
    pub peer: String,
    /// What is being done.
    pub phase: String,
}

/// `GET /v1/containers`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Containers {
    /// All of this node, whichever client made them.
    pub containers: Vec<Container>,
}
