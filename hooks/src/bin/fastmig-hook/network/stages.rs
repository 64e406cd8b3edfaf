//! What is to be done at which stage.

use fastmig_engine::checkpoint::After;
use fastmig_hooks::{in_network_of, Direction, Facts, Operation, Stage};

use super::announce::announce;
use super::{address, mute, Arguments, NetworkError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Whether it can move from here.
    Check,
    /// It is here no longer.
    Leave,
    /// It is here, but nobody knows.
    Prepare,
    /// It is here, and everybody knows.
    Arrive,
    /// It is not to be here.
    Withdraw,
    Nothing,
}

fn step(facts: &Facts) -> Step {
    let runs_on = facts.operation == Operation::Checkpoint && facts.after == Some(After::Run);
    match (facts.stage, facts.direction) {
        _ if runs_on => Step::Nothing,
        (Stage::PreCheckpoint, _) => Step::Check,
        (Stage::PostCheckpoint, _) => Step::Leave,
        (Stage::PreRestore, _) => Step::Prepare,
        (Stage::PostRestore, _) | (Stage::Aborted, Direction::Leaving) => Step::Arrive,
        (Stage::Aborted, Direction::Arriving) => Step::Withdraw,
    }
}

/// Does the part of this host at this stage.
pub(crate) fn run(arguments: &Arguments, facts: &Facts) -> Result<(), NetworkError> {
    let (step, pid) = (step(facts), facts.container.pid);
    if arguments.on_host {
        return perform(step, arguments);
    }
    let arguments = arguments.clone();
    // The outer result is the way in, the inner one what was done there.
    in_network_of(pid, move || Ok(perform(step, &arguments)))
        .map_err(|source| NetworkError::Enter { pid, source })?
}

fn perform(step: Step, arguments: &Arguments) -> Result<(), NetworkError> {
    let (address, device) = (arguments.address, &arguments.device);
    match step {
        Step::Check => address::require_movable(address, device),
        Step::Leave => address::remove(address, device),
        Step::Prepare => {
            mute::mute(address, device)?;
            address::add(address, device)
        }
        Step::Arrive => {
            address::add(address, device)?;
            mute::unmute(address, device)?;
            announce(address, device)
        }
        Step::Withdraw => {
            address::remove(address, device)?;
            mute::unmute(address, device)
        }
        Step::Nothing => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stage: &str, operation: &str, direction: &str, after: &str) -> Step {
        let facts = serde_json::json!({
            "version": 1, "stage": stage, "operation": operation, "direction": direction, "after": after, "host": "a",
            "container": { "namespace": "default", "id": "web", "names": [], "pid": 1 },
        });
        step(&serde_json::from_value(facts).unwrap())
    }

    #[test]
    fn the_address_is_where_the_application_is() {
        for (stage, direction, step) in [
            ("pre-checkpoint", "leaving", Step::Check),
            ("post-checkpoint", "leaving", Step::Leave),
            ("pre-restore", "arriving", Step::Prepare),
            ("post-restore", "arriving", Step::Arrive),
            ("aborted", "leaving", Step::Arrive),
            ("aborted", "arriving", Step::Withdraw),
        ] {
            assert_eq!(at(stage, "migrate", direction, "standby"), step, "{stage} {direction}");
        }
        assert_eq!(at("post-checkpoint", "checkpoint", "leaving", "standby"), Step::Leave);
        assert_eq!(at("post-checkpoint", "checkpoint", "leaving", "run"), Step::Nothing);
    }
}
