//! Where a migration calls the operator's commands.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ends::EndError;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// On the source, just before the application is stopped.
    PreCheckpoint,
    /// On the source, once it is dumped; it stands still.
    PostCheckpoint,
    /// On the destination, before it is restored.
    PreRestore,
    /// On the destination, after commit, once it runs. Its failure is reported and changes nothing any more.
    PostRestore,
    /// On either side, when a migration failed whose first hook there had been called; on the source it runs again by then.
    Aborted,
}

/// The operator's commands. `facts` has `migration`, `role` (`source` or `destination`), `peer`, `container`, `wanted` and
/// `facts` (what the daemon gave as facts of its container); for [`Stage::Aborted`] also `reason`.
pub trait Hooks: Send + Sync {
    /// Runs those of a stage, in order, each within its own time limit.
    ///
    /// # Errors
    /// When one failed that is not to be ignored.
    fn run(&self, stage: Stage, facts: &Value) -> Result<(), EndError>;
}

/// No hooks.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn run(&self, _: Stage, _: &Value) -> Result<(), EndError> {
        Ok(())
    }
}
