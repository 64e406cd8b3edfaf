//! Checkpoints that nobody asks for: each container that says so, or that the settings say it of, is checkpointed at its times,
//! so that a policy has something to restore.
//!
//! Each is an operation like any other, by the caller `periodic`: it is listed, told of and counted, and one that fails changes
//! nothing. When the last one was taken stands on disk, so that a daemon that starts again goes on where it was.
//!
//! | file | what it does |
//! |---|---|
//! | `times` | when the next one of a container is due |
//! | `shelf` | those that are there, what they take, and which have to go |

mod shelf;
mod times;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastmig_api::operation::Kind;
use fastmig_api::request::{After, CheckpointRequest, CheckpointStrategy};
use fastmig_api::{Code, ErrorInfo};
use fastmig_engine::config::periodic::PREFIX;
use fastmig_engine::{state, ApplicationState, Config, Container, Schedule};
use serde_json::Value;
use tokio::task::JoinSet;

use self::shelf::Shelf;
use self::times::Times;
use crate::daemon::Daemon;
use crate::operations::Asked;
use crate::task::blocking;
use crate::work;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// So many at a time: the others of the host's containers wait for their turn.
const AT_A_TIME: usize = 2;

/// Who asks.
const CALLER: &str = "periodic";

/// A container, and how often it is checkpointed.
#[derive(Debug)]
struct Due {
    container: Container,
    schedule: Schedule,
}

/// Takes checkpoints at their times until the daemon stops.
pub(crate) async fn take(daemon: Arc<Daemon>) {
    let mut stopping = std::pin::pin!(daemon.stopping());
    let times = Arc::new(Mutex::new(Times::default()));
    let mut running = JoinSet::new();
    let shared = daemon.clone();
    // What a killed daemon has left.
    let _ = blocking(move || Shelf::of(&shared).sweep(&shared)).await;
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopping => return,
        }
        while running.try_join_next().is_some() {}
        let room = AT_A_TIME.saturating_sub(running.len());
        let (shared, seen) = (daemon.clone(), times.clone());
        let Ok(due) = blocking(move || due(&shared, &seen, room)).await else { return };
        for due in due {
            running.spawn(one(daemon.clone(), due, times.clone()));
        }
    }
}

/// The containers whose time has come, up to so many.
fn due(daemon: &Daemon, times: &Mutex<Times>, room: usize) -> Vec<Due> {
    let scheduled = scheduled(&daemon.config);
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    times.keep_only(scheduled.iter().map(|due| due.container.key()));
    let is_due = |due: &Due| {
        let key = due.container.key();
        let now = Instant::now();
        times.is_due(key, due.schedule.interval(), now, || Shelf::of(daemon).age_of_last(key))
            && can_be(daemon, &due.container)
    };
    let due: Vec<Due> = scheduled.into_iter().filter(is_due).take(room).collect();
    for due in &due {
        times.begun(due.container.key(), Instant::now());
    }
    due
}

fn scheduled(config: &Arc<Config>) -> Vec<Due> {
    let keys = state::list(config).unwrap_or_default();
    let open = |key| {
        let container = Container::open(config.clone(), key).ok()?;
        let schedule = container.schedule().ok().flatten()?;
        Some(Due { container, schedule })
    };
    keys.iter().filter_map(open).collect()
}

/// One that does not run has nothing to be saved, and one that is being worked on has its turn afterwards.
fn can_be(daemon: &Daemon, container: &Container) -> bool {
    let runs = container.status().is_ok_and(|status| {
        status.application == ApplicationState::Running && !status.paused && status.migration.is_none()
    });
    runs && daemon.operations.at_work_on(container.key().id()).is_none()
}

/// Takes one, as an operation.
async fn one(daemon: Arc<Daemon>, due: Due, times: Arc<Mutex<Times>>) {
    let asked = Asked {
        kind: Kind::Checkpoint,
        container: due.container.key().id().to_owned(),
        key: None,
        fingerprint: CALLER.into(),
        caller: CALLER.into(),
    };
    let (shared, key) = (daemon.clone(), due.container.key().clone());
    let done = daemon.operations.perform(asked, move |_| checkpoint(&shared, &due)).await;
    match done {
        Ok(_) => daemon.metrics.periodic(true),
        // Nothing was begun: it has its turn when there is room.
        Err(e) if matches!(e.code, Code::Busy | Code::Unavailable) && e.operation.is_none() => {
            times.lock().unwrap_or_else(PoisonError::into_inner).not_begun(&key);
        }
        Err(e) => {
            tracing::warn!(container = key.id(), error = %e.message, "a periodic checkpoint failed");
            daemon.metrics.periodic(false);
        }
    }
}

fn checkpoint(daemon: &Daemon, due: &Due) -> Result<Value, ErrorInfo> {
    let shelf = Shelf::of(daemon);
    shelf.require_room(due.container.key())?;
    let request = CheckpointRequest {
        name: Some(format!("{PREFIX}{}", work::name_of(due.container.key().id()))),
        replace: false,
        after: After::Run,
        tcp: None,
        files: daemon.config.periodic.files,
        volumes: Vec::new(),
        external_unix_sockets: true,
        file_locks: true,
        strategy: CheckpointStrategy::Auto,
        verify: false,
        hooks: true,
    };
    let report = work::take(daemon, &due.container, &request, true)?;
    daemon.metrics.periodic_bytes(shelf.prune(daemon, due.container.key(), due.schedule.keep));
    Ok(report)
}
