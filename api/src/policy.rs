//! What decides about an application that has ended, and what it has decided.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A container's policy at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The process that decides; none while it was killed and not replaced yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<i32>,
    /// How often the application was started again or restored in place.
    pub restarts: u64,
    /// The last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Decision>,
}

/// A decision, with what led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// When, RFC 3339.
    pub at: String,
    /// `scratch`, `restore`, `standby` or `exit`.
    pub action: String,
    /// The checkpoint of a restore: a name, or `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The end, and the rule that it fits.
    pub reason: String,
    /// The wait before it, in milliseconds.
    pub delay_ms: u64,
    /// How the application ended, as a shell reports it; none when a restore failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Whether memory ran out.
    pub oom: bool,
    /// Restarts in place so far, with this one.
    pub restarts: u64,
    /// The id of the decision, and of what was done because of it, in the log of operations.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
}
