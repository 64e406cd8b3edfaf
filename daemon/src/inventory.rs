//! The containers of this node, whichever client made them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastmig_api::container::{Application, Container as Seen, Failure, Schedule};
use fastmig_api::policy::{Decision, Policy};
use fastmig_engine::container::{PolicyStatus, Status};
use fastmig_engine::keeper::journal::Entry;
use fastmig_engine::{state, ApplicationState, Config, Container, Error, Key, Kind};

/// How all of them stand. One that ends while we look is no failure of the list.
///
/// # Errors
/// When the state directory cannot be read.
pub fn all(config: &Arc<Config>) -> Result<Vec<Seen>, Error> {
    let keys = state::list(config)?;
    Ok(keys.iter().filter_map(|key| one(config, key).ok()).collect())
}

/// How one stands.
///
/// # Errors
/// When there is none, or its state cannot be read.
pub fn one(config: &Arc<Config>, key: &Key) -> Result<Seen, Error> {
    Ok(seen(Container::open(config.clone(), key)?.status()?))
}

/// The one that is meant: by its id, its name or what its id begins with, or any of these after `NAMESPACE/`.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(config: &Config, text: &str, namespace: Option<&str>) -> Result<Key, Error> {
    let not_found = match state::find(config, text, namespace) {
        Err(e) if e.kind() == Kind::NotFound => e,
        found => return found,
    };
    match text.split_once('/') {
        Some((within, rest)) if namespace.is_none() => {
            state::find(config, rest, Some(within)).map_err(|_| not_found)
        }
        _ => Err(not_found),
    }
}

/// How many do what.
#[must_use]
pub fn count(containers: &[Seen]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for container in containers {
        *counts.entry(container.application.to_string()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn seen(status: Status) -> Seen {
    Seen {
        id: status.id,
        namespace: status.namespace,
        names: status.names,
        warm: status.warm,
        left_alone: status.left_alone,
        pid: status.pid,
        application: application(status.application),
        application_pid: status.application_pid,
        runs: status.runs,
        paused: status.paused,
        last_checkpoint: status.last_checkpoint.map(|path| path.display().to_string()),
        last_failure: status.last_failure.map(|failure| Failure {
            operation: failure.operation,
            at: failure.at,
            reason: failure.reason,
        }),
        policy: status.policy.map(policy),
        schedule: status.schedule.map(|s| Schedule { every: s.every, keep: s.keep }),
        operation: None,
        migrating: None,
    }
}

fn policy(status: PolicyStatus) -> Policy {
    Policy {
        name: status.name,
        keeper: status.keeper,
        restarts: status.decided.restarts,
        last: status.decided.last.map(decision),
    }
}

pub(crate) fn decision(entry: Entry) -> Decision {
    Decision {
        at: entry.at,
        action: entry.action,
        checkpoint: entry.checkpoint,
        reason: entry.reason,
        delay_ms: entry.delay_ms,
        code: entry.code,
        oom: entry.oom,
        restarts: entry.restarts,
        operation: entry.operation,
    }
}

fn application(state: ApplicationState) -> Application {
    match state {
        ApplicationState::Created => Application::Created,
        ApplicationState::Running => Application::Running,
        ApplicationState::Standby => Application::Standby,
        ApplicationState::Restoring => Application::Restoring,
        ApplicationState::Ended => Application::Ended,
    }
}
