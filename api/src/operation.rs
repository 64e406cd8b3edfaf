//! An operation: what was asked, how far it is, and what became of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ErrorInfo;
use crate::migration::MigrationReport;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Starts an application, from scratch or from a checkpoint.
    Run,
    /// Makes a checkpoint.
    Checkpoint,
    /// Ends an application and keeps its container.
    Standby,
    /// Restores from a checkpoint.
    Restore,
    /// Moves an application to another host.
    Migrate,
    /// Takes an application in from another host.
    Receive,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Run => "run",
            Self::Checkpoint => "checkpoint",
            Self::Standby => "standby",
            Self::Restore => "restore",
            Self::Migrate => "migrate",
            Self::Receive => "receive",
        })
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is at work.
    Running,
    /// It was done.
    Done,
    /// It was not done, for a reason.
    Failed,
    /// It was not done, as asked.
    Cancelled,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// What it does.
    pub kind: Kind,
    /// The container that it is about.
    pub container: String,
    /// The idempotency key that it was asked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How far it is.
    pub state: State,
    /// What is being done, where it has phases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// How long it took, or takes by now, in milliseconds.
    pub took_ms: u64,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// A migration's report, as far as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationReport>,
}

/// `GET /v1/operations`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Operations {
    /// The latest last.
    pub operations: Vec<Operation>,
}

/// The answer to a call that did something: given when the operation has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Done{R}")]
pub struct Done<R> {
    /// The operation.
    pub operation: String,
    /// The container, by its whole id.
    pub container: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it came to.
    pub report: R,
}

/// `POST /v1/operations/{id}/cancel`: given at once. Whether it was cancelled is what the operation itself answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelling {
    /// The operation.
    pub operation: String,
    /// Whether it can still be cancelled; a migration cannot once its commit was sent.
    pub accepted: bool,
}

/// `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Whether operations are taken.
    pub ok: bool,
    /// The daemon's version.
    pub version: String,
    /// What this host is called among its peers.
    pub host: String,
    /// What is wrong, when something is.
    #[serde(default)]
    pub problems: Vec<String>,
}
