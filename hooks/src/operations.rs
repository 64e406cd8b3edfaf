//! A checkpoint and a restore with the operator's hooks around them, and the hooks of a migration.

use fastmig_engine::checkpoint::{self, After};
use fastmig_engine::config::hooks::{Operation, Stage};
use fastmig_engine::{restore, Container, Error};
use serde_json::Value;

use crate::facts::{ContainerFacts, Direction, Facts, VERSION};
use crate::runner::{HookError, Runner};

/// [`Container::checkpoint`] with the hooks around it.
///
/// # Errors
/// When a hook before it fails, there is no checkpoint; when one after it does, the checkpoint stands. Else as without hooks.
pub fn checkpoint(container: &Container, request: &checkpoint::Request) -> Result<checkpoint::Report, Error> {
    let around = Around { operation: Operation::Checkpoint, after: Some(request.after) };
    around.perform(container, || container.checkpoint(request))
}

/// [`Container::restore`] with the hooks around it.
///
/// # Errors
/// When a hook before it fails, nothing is restored; when one after it does, the application runs. Else as without hooks.
pub fn restore(container: &Container, request: &restore::Request) -> Result<restore::Report, Error> {
    let around = Around { operation: Operation::Restore, after: None };
    around.perform(container, || container.restore(request))
}

/// What the hooks of one operation have in common.
struct Around {
    operation: Operation,
    after: Option<After>,
}

impl Around {
    fn perform<T>(self, container: &Container, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let runner = Runner::new(container.config());
        if !runner.has_any_for(self.operation) {
            return work();
        }
        let (direction, before, after) = match self.operation {
            Operation::Restore => (Direction::Arriving, Stage::PreRestore, Stage::PostRestore),
            _ => (Direction::Leaving, Stage::PreCheckpoint, Stage::PostCheckpoint),
        };
        let mut facts = Facts {
            version: VERSION,
            stage: before,
            operation: self.operation,
            direction,
            after: self.after,
            migration: None,
            host: runner.host().to_owned(),
            peer: None,
            reason: None,
            container: ContainerFacts::of(container),
        };
        let done = runner.run(&facts).map_err(failed).and_then(|()| work());
        let report = done.inspect_err(|e| {
            facts.stage = Stage::Aborted;
            facts.reason = Some(e.report());
            undo(&runner, &facts);
        })?;
        facts.stage = after;
        runner.run(&facts).map_err(failed)?;
        Ok(report)
    }
}

fn failed(error: HookError) -> Error {
    Error::Hook(Box::new(error))
}

/// What cannot be undone is told; the first failure is the one that counts.
fn undo(runner: &Runner, facts: &Facts) {
    if let Err(e) = runner.run(facts) {
        tracing::error!(error = %e, cause = %e.source, "a hook could not undo what it had done");
    }
}

/// The hooks of a migration on one host: what `migrate` asks of the daemon.
#[derive(Debug, Clone)]
pub struct MigrationHooks {
    runner: Runner,
    container: ContainerFacts,
}

impl MigrationHooks {
    /// For a migration of, or into, `container`.
    #[must_use]
    pub fn new(container: &Container) -> Self {
        let runner = Runner::new(container.config());
        let container = if runner.has_any_for(Operation::Migrate) {
            ContainerFacts::of(container)
        } else {
            ContainerFacts::default()
        };
        Self { runner, container }
    }

    /// Runs those of a stage. `told` is what the protocol knows: `migration`, `role` (`source` or `destination`), `peer`,
    /// and `reason` when it was aborted.
    ///
    /// # Errors
    /// The first failure that is not to be ignored.
    pub fn run(&self, stage: Stage, told: &Value) -> Result<(), HookError> {
        if !self.runner.has_any_for(Operation::Migrate) {
            return Ok(());
        }
        let text = |key: &str| told[key].as_str().map(str::to_owned);
        let direction = if told["role"] == "destination" { Direction::Arriving } else { Direction::Leaving };
        self.runner.run(&Facts {
            version: VERSION,
            stage,
            operation: Operation::Migrate,
            direction,
            after: None,
            migration: text("migration"),
            host: self.runner.host().to_owned(),
            peer: text("peer"),
            reason: text("reason"),
            container: self.container.clone(),
        })
    }
}
