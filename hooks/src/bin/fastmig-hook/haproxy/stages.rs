//! What is to be done at which stage.

use fastmig_engine::checkpoint::After;
use fastmig_hooks::{Direction, Facts, Operation, Stage};

use super::hold::hold;
use super::release::release;
use super::{Arguments, HaproxyError};

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Hold,
    /// The application serves from this host.
    Release,
    Nothing,
}

fn step(facts: &Facts) -> Step {
    let runs_on = facts.operation == Operation::Checkpoint && facts.after == Some(After::Run);
    match (facts.stage, facts.direction) {
        (Stage::PreCheckpoint, _) => Step::Hold,
        (Stage::PostCheckpoint, _) if runs_on => Step::Release,
        (Stage::PostRestore, _) | (Stage::Aborted, Direction::Leaving) => Step::Release,
        // The application is on its way; where it left from, or has arrived, HAProxy is told.
        (Stage::PostCheckpoint | Stage::PreRestore | Stage::Aborted, _) => Step::Nothing,
    }
}

/// Does the part of this host at this stage.
pub(crate) fn run(arguments: &Arguments, facts: &Facts) -> Result<(), HaproxyError> {
    match step(facts) {
        Step::Hold => hold(arguments),
        Step::Release => release(arguments),
        Step::Nothing => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stage: &str, operation: &str, direction: &str, after: Option<&str>) -> Step {
        let mut facts = serde_json::json!({
            "version": 1, "stage": stage, "operation": operation, "direction": direction, "host": "a",
            "container": { "namespace": "default", "id": "web", "names": [], "pid": 1 },
        });
        if let Some(after) = after {
            facts["after"] = after.into();
        }
        step(&serde_json::from_value(facts).unwrap())
    }

    #[test]
    fn requests_wait_until_the_application_runs_again_somewhere() {
        assert_eq!(at("pre-checkpoint", "migrate", "leaving", None), Step::Hold);
        assert_eq!(at("post-checkpoint", "migrate", "leaving", None), Step::Nothing);
        assert_eq!(at("pre-restore", "migrate", "arriving", None), Step::Nothing);
        assert_eq!(at("post-restore", "migrate", "arriving", None), Step::Release);
        assert_eq!(at("aborted", "migrate", "leaving", None), Step::Release);
        assert_eq!(at("aborted", "migrate", "arriving", None), Step::Nothing);
        assert_eq!(at("post-checkpoint", "checkpoint", "leaving", Some("run")), Step::Release);
        assert_eq!(at("post-checkpoint", "checkpoint", "leaving", Some("standby")), Step::Nothing);
        assert_eq!(at("post-restore", "restore", "arriving", None), Step::Release);
    }
}
