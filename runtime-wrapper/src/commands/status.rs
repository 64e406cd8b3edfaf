//! `fastmig status [CONTAINER]`

use std::process::ExitCode;

use clap::Args;
use fastmig_engine::container::{PolicyStatus, Status};
use fastmig_engine::{state, Container, Error};

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The container's id, or what it begins with; all containers when left out
    container: Option<String>,
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        if let Some(id) = &self.container {
            context.output.value(&context.container(id)?.status()?, describe);
            return Ok(ExitCode::SUCCESS);
        }
        let all: Vec<Status> = state::list(&context.config)?
            .iter()
            // One that ends while we look is no failure of the list.
            .filter_map(|key| Container::open(context.config.clone(), key).and_then(|c| c.status()).ok())
            .collect();
        context.output.value(&all, |all| all.iter().map(line).collect::<Vec<_>>().join("\n"));
        Ok(ExitCode::SUCCESS)
    }
}

fn describe_policy(policy: &PolicyStatus) -> String {
    let kept = if policy.keeper.is_some() { "" } else { " (nobody is there to decide)" };
    let mut text = format!("\npolicy: {}{kept}, {} restarts in place", policy.name, policy.decided.restarts);
    if let Some(last) = &policy.decided.last {
        text.push_str(&format!("\nlast decision: {} at {}: {}", last.action, last.at, last.reason));
    }
    text
}

fn line(status: &Status) -> String {
    let paused = if status.paused { " (paused)" } else { "" };
    let left = status.left_alone.as_deref().map(|r| format!(" (left to runc: {r})")).unwrap_or_default();
    format!("{}/{}\t{}{paused}{left}", status.namespace, status.id, status.application)
}

fn describe(status: &Status) -> String {
    let mut text = line(status);
    if let Some(pid) = status.application_pid {
        text.push_str(&format!("\napplication: pid {pid} in the container, came up {} times", status.runs));
    }
    if let Some(path) = &status.last_checkpoint {
        text.push_str(&format!("\nlast checkpoint: {}", path.display()));
    }
    if let Some(schedule) = &status.schedule {
        text.push_str(&format!(
            "\ncheckpointed by the daemon every {} s, {} stay",
            schedule.every, schedule.keep
        ));
    }
    if let Some(policy) = &status.policy {
        text.push_str(&describe_policy(policy));
    }
    if let Some(failure) = &status.last_failure {
        text.push_str(&format!(
            "\nlast failure: {} at {}: {}",
            failure.operation, failure.at, failure.reason
        ));
    }
    text
}
