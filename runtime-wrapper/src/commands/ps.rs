//! `fastmig ps`: the containers of this host that stand under FastMig, whichever client made them. With a container it is
//! runc's command.

use std::process::ExitCode;

use fastmig_api::container::{Application, Container, Failure};
use fastmig_engine::container::Status;
use fastmig_engine::{state, ApplicationState, Error};
use serde_json::json;

use super::figures::{short, table};
use super::Context;

pub(crate) fn run(context: &Context) -> ExitCode {
    let (mut containers, asked) = match context.daemon().containers() {
        Ok(containers) => (containers, true),
        Err(e) if e.is_not_running() => match from_state(context) {
            Ok(containers) => (containers, false),
            Err(e) => return context.conclude(Err(e)),
        },
        Err(e) => return context.daemon_failed(&e),
    };
    containers.retain(|c| context.namespace.as_ref().is_none_or(|namespace| c.namespace == *namespace));
    let answer = json!({ "containers": containers, "daemon": asked });
    context.output.value(&answer, |_| as_table(&containers));
    ExitCode::SUCCESS
}

/// What the daemon would see, but for what it itself is at.
fn from_state(context: &Context) -> Result<Vec<Container>, Error> {
    let keys = state::list(&context.config)?;
    // One that ends while we look is no failure of the list.
    let all = keys.iter().filter_map(|key| {
        fastmig_engine::Container::open(context.config.clone(), key).and_then(|c| c.status()).ok()
    });
    Ok(all.map(container).collect())
}

fn container(status: Status) -> Container {
    Container {
        id: status.id,
        namespace: status.namespace,
        names: status.names,
        warm: status.warm,
        left_alone: status.left_alone,
        pid: status.pid,
        application: match status.application {
            ApplicationState::Created => Application::Created,
            ApplicationState::Running => Application::Running,
            ApplicationState::Standby => Application::Standby,
            ApplicationState::Restoring => Application::Restoring,
            ApplicationState::Ended => Application::Ended,
        },
        application_pid: status.application_pid,
        runs: status.runs,
        paused: status.paused,
        last_checkpoint: status.last_checkpoint.map(|path| path.display().to_string()),
        last_failure: status.last_failure.map(|failure| Failure {
            operation: failure.operation,
            at: failure.at,
            reason: failure.reason,
        }),
        policy: None,
        schedule: None,
        operation: None,
        migrating: None,
    }
}

fn as_table(containers: &[Container]) -> String {
    let rows: Vec<_> = containers.iter().map(row).collect();
    table(["CONTAINER", "NAME", "NAMESPACE", "APPLICATION", "RUNS", "LAST CHECKPOINT"], &rows)
}

fn row(container: &Container) -> [String; 6] {
    [
        short(&container.id).into(),
        container.names.first().cloned().unwrap_or_default(),
        container.namespace.clone(),
        doing(container),
        container.runs.to_string(),
        container.last_checkpoint.clone().unwrap_or_default(),
    ]
}

/// The application, and what is being done to it.
fn doing(container: &Container) -> String {
    use fastmig_api::migration::Side;
    if !container.warm {
        return "left to runc".into();
    }
    if let Some(migrating) = &container.migrating {
        let way = match migrating.side {
            Side::Source => "leaving for",
            Side::Destination => "arriving from",
        };
        return format!("{way} {} ({})", migrating.peer, migrating.phase);
    }
    let paused = if container.paused { " (paused)" } else { "" };
    format!("{}{paused}", container.application)
}

#[cfg(test)]
mod tests {
    use fastmig_api::container::Migrating;
    use fastmig_api::migration::Side;

    use super::*;

    fn web() -> Container {
        Container {
            id: "ab".repeat(32),
            namespace: "moby".into(),
            names: vec!["web".into()],
            warm: true,
            left_alone: None,
            pid: 7,
            application: Application::Running,
            application_pid: Some(1001),
            runs: 2,
            paused: true,
            last_checkpoint: None,
            last_failure: None,
            policy: None,
            schedule: None,
            operation: None,
            migrating: None,
        }
    }

    #[test]
    fn a_row_says_what_is_going_on() {
        assert_eq!(row(&web()), ["abababababab", "web", "moby", "running (paused)", "2", ""]);
        let migrating =
            Migrating { id: "m".into(), side: Side::Source, peer: "host-b".into(), phase: "files".into() };
        assert_eq!(doing(&Container { migrating: Some(migrating), ..web() }), "leaving for host-b (files)");
        assert_eq!(doing(&Container { warm: false, ..web() }), "left to runc");
    }

    #[test]
    fn an_empty_host_has_titles_only() {
        assert_eq!(as_table(&[]).lines().count(), 1);
    }
}
