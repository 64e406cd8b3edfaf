//! The daemon's life: what is on disk is opened, what was interrupted is settled, listeners open, and at SIGTERM all this in
//! reverse.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastmig_engine::{check, Config};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sd_notify::NotifyState;
use tokio::signal::unix::{signal, SignalKind};

use crate::daemon::Daemon;
use crate::pki::identity::HostSettings;
use crate::pki::join::Desk;
use crate::pki::Place;
use crate::server::{Gate, Http, Tcp, Unix};
use crate::start::StartError;
use crate::{decisions, periodic, watch};

/// Answers under way when everything has ended are given this time.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How long a daemon that ends may hold what the next one needs.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub fn run(config: Config) -> Result<(), StartError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    let config = Arc::new(config);
    let _lock = lock(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(StartError::io("start threads for", &config.daemon.state_dir))?;
    let outcome = runtime.block_on(live(config));
    // Work that did not end in time is left behind: the watchdogs of the engine see to the applications.
    runtime.shutdown_timeout(LAST_ANSWERS);
    outcome
}

/// Two daemons would answer for the same containers. One that was killed holds its lock until the kernel has taken it
/// apart: it is waited for.
fn lock(config: &Config) -> Result<Flock<File>, StartError> {
    let directory = &config.daemon.state_dir;
    crate::files::make_private_dir(directory).map_err(StartError::io("make", directory))?;
    let path = directory.join("daemon.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let mut file = file.map_err(StartError::io("open", &path))?;
    let begun = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if begun.elapsed() < PREDECESSOR => file = back,
            Err((_, Errno::EWOULDBLOCK)) => return Err(StartError::AlreadyRuns { path: directory.clone() }),
            Err((_, errno)) => return Err(StartError::io("lock", &path)(errno.into())),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn live(config: Arc<Config>) -> Result<(), StartError> {
    let failed = || StartError::io("wait for signals at", &config.daemon.socket);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed())?;
    let daemon = Daemon::open(config.clone())?;
    let place = Place::below(&config.daemon.state_dir);
    let address = address(&config, &place)?;
    let http = Http::new(&daemon);
    let gate = match (address, &daemon.identity) {
        (None, _) => None,
        (Some(address), None) => return Err(StartError::NoAuthentication { address: address.to_string() }),
        (Some(address), Some(identity)) => {
            let desk = if config.daemon.has_own_certificates() { None } else { Desk::open(&place)? };
            Some((address, Gate::new(identity, desk)?))
        }
    };
    let unix = Unix::bind(&config.daemon.socket)?;
    let tcp = match gate {
        Some((address, gate)) => Some(Tcp::bind(address, gate, http.clone()).await?),
        None => None,
    };
    probe(&daemon);
    recover(&daemon).await;
    let mut listeners = tokio::task::JoinSet::new();
    listeners.spawn(unix.serve(http));
    listeners.spawn(watch::containers(daemon.clone()));
    listeners.spawn(decisions::tell(daemon.clone()));
    listeners.spawn(periodic::take(daemon.clone()));
    if let Some(tcp) = tcp {
        listeners.spawn(tcp.serve());
    }
    notify(&[NotifyState::Ready]);
    tracing::info!(host = daemon.host, socket = ?config.daemon.socket, ?address, "ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop(&daemon, Duration::from_secs(config.daemon.stop)).await;
    Ok(())
}

/// Where to listen: what the configuration says, or what `init` or `join` was told.
fn address(config: &Config, place: &Place) -> Result<Option<SocketAddr>, StartError> {
    if let Some(address) = config.daemon.listen() {
        return Ok(Some(address));
    }
    let Some(address) = HostSettings::load(place)?.and_then(|host| host.address) else { return Ok(None) };
    address.parse().map(Some).map_err(|_| StartError::BadAddress { address })
}

/// The first call of CRIU on a host pays for what it learns of the kernel; nobody waits for it here.
fn probe(daemon: &Arc<Daemon>) {
    let daemon = daemon.clone();
    tokio::task::spawn_blocking(move || {
        let report = check::host(&daemon.config);
        let blockers = report.findings.into_iter().filter(|f| f.severity == check::Severity::Blocker);
        daemon.found(blockers.map(|finding| format!("{}; {}", finding.cause, finding.remedy)).collect());
    });
}

/// Nobody is served before what was interrupted has been settled as far as this host alone can.
async fn recover(daemon: &Arc<Daemon>) {
    let daemon = daemon.clone();
    let work = move || {
        daemon.checkpoints.sweep();
        daemon.recover();
        watch::clear_interrupted(&daemon);
    };
    if let Err(e) = tokio::task::spawn_blocking(work).await {
        tracing::error!(error = %e, "what was interrupted could not be settled");
    }
}

async fn stop(daemon: &Daemon, limit: Duration) {
    tracing::info!(running = daemon.operations.running(), "stopping");
    notify(&[NotifyState::Stopping]);
    daemon.stop();
    let until = Instant::now() + limit;
    let mut left = daemon.operations.drain(limit).await;
    while daemon.migrations.arriving() > 0 && Instant::now() < until {
        tokio::time::sleep(LAST_ANSWERS / 10).await;
    }
    left += daemon.migrations.arriving();
    if left > 0 {
        tracing::warn!(left, "operations are still at work and are left behind");
    }
    tokio::time::sleep(LAST_ANSWERS).await;
}

/// Without systemd nobody listens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!(error = %e, "systemd was not told");
    }
}
