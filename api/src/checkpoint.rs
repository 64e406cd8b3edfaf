//! Checkpoints: those that the daemon keeps, and the reports of a checkpoint and a restore.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::request::After;
use crate::resources::Resources;

/// A checkpoint that the daemon keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoint {
    /// What it is called.
    pub name: String,
    /// The container that it was made of.
    pub container: String,
    /// When, RFC 3339.
    pub made_at: String,
    /// Bytes in its files.
    pub bytes: u64,
    /// How many processes it holds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

/// `GET /v1/checkpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoints {
    /// The oldest first.
    pub checkpoints: Vec<Checkpoint>,
}

/// What a checkpoint came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointReport {
    /// What it is called.
    pub name: String,
    /// Where it stands on the daemon's host.
    pub path: String,
    /// What became of the application.
    pub after: After,
    /// Bytes in its files.
    pub bytes: u64,
    /// How many processes it holds.
    pub processes: u64,
    /// Files, directories, links and deletions that travel along.
    pub files: u64,
    /// From the freeze to the thaw or the end, in milliseconds.
    pub frozen_ms: u64,
    /// CRIU's part of it, in milliseconds.
    pub dump_ms: u64,
    /// How many rounds memory took; none where all was written while the application stood still.
    #[serde(default)]
    pub rounds: u32,
    /// Bytes that were written, of those in its files: the others were there already.
    #[serde(default)]
    pub written: u64,
    /// Bytes of memory that the checkpoint before had.
    #[serde(default)]
    pub reused: u64,
    /// Bytes of the last round, while the application stood still.
    #[serde(default)]
    pub last_round: u64,
    /// How many pages were compared with what the application had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_pages: Option<u64>,
    /// Why memory was not written in rounds, though that was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_because: Option<String>,
    /// What it took of the host.
    #[serde(default)]
    pub resources: Resources,
}

/// What a start, from scratch or from a checkpoint, came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunReport {
    /// The checkpoint that it came up from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The application's root, as the container counts it.
    pub application_pid: i32,
    /// The verification of the checkpoint, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_ms: Option<u64>,
    /// CRIU's part, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_ms: Option<u64>,
    /// What the restore took of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// From then on until all memory was there, in milliseconds, when some of it followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_ms: Option<u64>,
    /// How many bytes that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How often the application waited for some of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<u64>,
}

/// What a standby came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StandbyReport {}

/// `DELETE /v1/checkpoints/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// What is gone.
    pub name: String,
}
