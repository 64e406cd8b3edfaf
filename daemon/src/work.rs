//! The work of operations on a container of this host: what `fastmig` does at a terminal, with names for paths.

use fastmig_api::checkpoint::{CheckpointReport, RunReport, StandbyReport};
use fastmig_api::request::{After, CheckpointRequest, CheckpointStrategy, RestoreRequest, RunRequest, Tcp};
use fastmig_api::resources::Resources;
use fastmig_api::{Code, ErrorInfo};
use fastmig_engine::start_options::{TcpPolicy, Volumes};
use fastmig_engine::{checkpoint, restore, Container};
use serde::Serialize;
use serde_json::Value;

use crate::checkpoints::Origin;
use crate::daemon::Daemon;
use crate::failure::{internal, of_engine};
use crate::operations::Job;

/// Starts an application, from scratch or from a checkpoint.
pub(crate) fn run(
    daemon: &Daemon,
    container: &Container,
    request: &RunRequest,
    job: &Job,
) -> Result<Value, ErrorInfo> {
    let Some(name) = &request.checkpoint else {
        container.run().map_err(|e| of_engine(&e))?;
        let status = container.status().map_err(|e| of_engine(&e))?;
        return report(&RunReport {
            checkpoint: None,
            application_pid: status.application_pid.unwrap_or_default(),
            verify_ms: None,
            restore_ms: None,
            resources: None,
            memory_ms: None,
            memory_bytes: None,
            faults: None,
        });
    };
    let request = RestoreRequest {
        checkpoint: name.clone(),
        tcp: request.tcp,
        lazy_pages: false,
        hooks: request.hooks,
    };
    restore(daemon, container, &request, job)
}

/// Restores one of the daemon's checkpoints.
pub(crate) fn restore(
    daemon: &Daemon,
    container: &Container,
    request: &RestoreRequest,
    _job: &Job,
) -> Result<Value, ErrorInfo> {
    let mut asked = restore::Request::new(daemon.checkpoints.existing(&request.checkpoint)?);
    asked.tcp = request.tcp.map(policy);
    asked.lazy_pages = request.lazy_pages;
    let done =
        if request.hooks { fastmig_hooks::restore(container, &asked) } else { container.restore(&asked) };
    let done = done.map_err(|e| of_engine(&e))?;
    report(&RunReport {
        checkpoint: Some(request.checkpoint.clone()),
        application_pid: done.application_pid,
        verify_ms: Some(done.verify_ms),
        restore_ms: Some(done.restore_ms),
        resources: Some(resources(done.resources)),
        memory_ms: done.followed.map(|followed| followed.memory_ms),
        memory_bytes: done.followed.map(|followed| followed.memory_bytes),
        faults: done.followed.map(|followed| followed.faults),
    })
}

/// Makes a checkpoint.
pub(crate) fn checkpoint(
    daemon: &Daemon,
    container: &Container,
    request: &CheckpointRequest,
    _job: &Job,
) -> Result<Value, ErrorInfo> {
    take(daemon, container, request, false)
}

/// Makes one that somebody asked for, or a `periodic` one.
pub(crate) fn take(
    daemon: &Daemon,
    container: &Container,
    request: &CheckpointRequest,
    periodic: bool,
) -> Result<Value, ErrorInfo> {
    let name = request.name.clone().unwrap_or_else(|| name_of(container.key().id()));
    let path = daemon.checkpoints.path(&name)?;
    daemon.checkpoints.make()?;
    let after = match request.after {
        After::Run => checkpoint::After::Run,
        After::Standby => checkpoint::After::Standby,
        After::Exit => checkpoint::After::Exit,
    };
    let mut asked = checkpoint::Request::new(path, after);
    asked.replaces = request.replace;
    asked.tcp = request.tcp.map(policy);
    asked.files = request.files;
    asked.volumes = volumes(&request.volumes)?;
    asked.external_unix_sockets = request.external_unix_sockets;
    asked.file_locks = request.file_locks;
    asked.strategy = strategy(request.strategy);
    asked.verify = request.verify;
    let done = if request.hooks {
        fastmig_hooks::checkpoint(container, &asked)
    } else {
        container.checkpoint(&asked)
    };
    let done = done.map_err(|e| of_engine(&e))?;
    let processes = done.processes as u64;
    let origin = Origin { container: container.key().id().to_owned(), processes, periodic };
    if let Err(e) = daemon.checkpoints.note(&done.path, &origin) {
        // Nobody would know whose it is. Where the application has left it is all that there is of it.
        if request.after == After::Run {
            daemon.checkpoints.delete(&name)?;
        }
        return Err(internal(&e));
    }
    report(&CheckpointReport {
        name,
        path: done.path.display().to_string(),
        after: request.after,
        bytes: done.bytes,
        processes,
        files: done.files,
        frozen_ms: done.frozen_ms,
        dump_ms: done.dump_ms,
        rounds: done.memory.rounds,
        written: done.memory.written,
        reused: done.memory.reused,
        last_round: done.memory.last_round,
        verified_pages: done.memory.verified_pages,
        plain_because: done.memory.plain_because,
        resources: resources(done.resources),
    })
}

/// What was taken, in the words of the HTTP interface.
pub(crate) fn resources(taken: fastmig_engine::Resources) -> Resources {
    Resources {
        cpu_ms: taken.cpu_ms,
        memory_peak_bytes: taken.memory_peak_bytes,
        read_bytes: taken.read_bytes,
        written_bytes: taken.written_bytes,
    }
}

/// Ends an application and keeps its container.
pub(crate) fn standby(container: &Container) -> Result<Value, ErrorInfo> {
    container.standby().map_err(|e| of_engine(&e))?;
    report(&StandbyReport {})
}

fn strategy(strategy: CheckpointStrategy) -> checkpoint::Strategy {
    match strategy {
        CheckpointStrategy::Auto => checkpoint::Strategy::Auto,
        CheckpointStrategy::PreCopy => checkpoint::Strategy::PreCopy,
        CheckpointStrategy::StopCopy => checkpoint::Strategy::StopCopy,
    }
}

/// What is asked of TCP connections, in the engine's words.
pub(crate) fn policy(tcp: Tcp) -> TcpPolicy {
    match tcp {
        Tcp::Close => TcpPolicy::Close,
        Tcp::Keep => TcpPolicy::Keep,
        Tcp::Refuse => TcpPolicy::Refuse,
    }
}

/// The volumes that are named; nothing when the container's annotation decides.
pub(crate) fn volumes(named: &[String]) -> Result<Option<Volumes>, ErrorInfo> {
    if named.is_empty() {
        return Ok(None);
    }
    let refused = |why: String| ErrorInfo::new(Code::BadRequest, format!("volumes: {why}"));
    if let Some(bad) = named.iter().find(|path| path.contains(',')) {
        return Err(refused(format!("{bad:?} has a comma in it")));
    }
    let volumes: Volumes = named.join(",").parse().map_err(|e| refused(format!("{e}")))?;
    Ok(Some(volumes))
}

/// A report, as the registry keeps it.
pub(crate) fn report<T: Serialize>(report: &T) -> Result<Value, ErrorInfo> {
    serde_json::to_value(report).map_err(|e| internal(&e))
}

/// What nobody gave a name is called by container and time.
pub(crate) fn name_of(container: &str) -> String {
    let short: String =
        container.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect();
    let short = short.trim_start_matches(['.', '_', '-']);
    let short = if short.is_empty() { "checkpoint" } else { short };
    let time = fastmig_engine::now().replace(':', ".").replace('Z', "");
    format!("{short}-{time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_is_one() {
        for container in ["web", "_x", "+-", &"a".repeat(128)] {
            let name = name_of(container);
            fastmig_api::request::checkpoint_name("name", &name).unwrap();
        }
    }
}
