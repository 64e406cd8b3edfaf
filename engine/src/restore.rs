//! A restore, step by step: check, make room, let CRIU bring the tree up below the init, let the init adopt it.
//!
//! Whatever fails, what was half restored is killed, the container is in standby, and another try can succeed.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fastmig_control::{Pid, Reply, Request as InitRequest};
use fastmig_criu::{Common, InheritedFd, Launch, Notification, RestoreOptions};
use serde::Serialize;

use crate::application::{self, PID_BASE};
use crate::capabilities;
use crate::cgroup;
use crate::clock::milliseconds;
use crate::container::{Container, Operation};
use crate::image::Image;
use crate::orphans;
use crate::privilege;
use crate::root_files;
use crate::start_options::TcpPolicy;
use crate::state::{ApplicationState, Failure};
use crate::Error;

/// A restore that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The checkpoint.
    pub path: PathBuf,
    /// What becomes of the TCP connections in it; as it was taken when not given.
    pub tcp: Option<TcpPolicy>,
    /// Where CRIU's log is put too, as `restore.log`.
    pub work_path: Option<PathBuf>,
}

impl Request {
    /// A restore from the checkpoint at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, tcp: None, work_path: None }
    }
}

/// What a restore came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The checkpoint.
    pub path: PathBuf,
    /// The application's root, as the container counts it.
    pub application_pid: i32,
    /// The verification of the checkpoint, in milliseconds.
    pub verify_ms: u64,
    /// CRIU's part, in milliseconds.
    pub restore_ms: u64,
    /// All of it, in milliseconds.
    pub total_ms: u64,
}

impl Container {
    /// Restores an application into this container, which must be in standby.
    ///
    /// # Errors
    /// When the checkpoint is damaged or does not fit, or CRIU fails: the container is in standby then.
    pub fn restore(&self, request: &Request) -> Result<Report, Error> {
        let mut operation = self.begin_warm("restore into")?;
        perform(self, &mut operation, request)
    }
}

pub(crate) fn perform(
    container: &Container,
    operation: &mut Operation,
    request: &Request,
) -> Result<Report, Error> {
    if operation.record.paused {
        return Err(Error::Paused { id: container.key().id().into(), action: "restore into" });
    }
    abandon_interrupted(container)?;
    container.require_standby("restore into")?;
    let result = attempt(container, operation, request);
    match &result {
        Ok(_) => operation.unlock_network(),
        Err(e) => operation.record.last_failure = Some(Failure::now("restore", e)),
    }
    operation.save()?;
    result
}

/// We hold the lock, so a restore that is still under way belongs to someone who was killed.
pub(crate) fn abandon_interrupted(container: &Container) -> Result<(), Error> {
    if container.application()? == ApplicationState::Restoring {
        tracing::warn!(container = container.key().id(), "an interrupted restore is cleared away");
        clear(container);
    }
    Ok(())
}

fn attempt(container: &Container, operation: &Operation, request: &Request) -> Result<Report, Error> {
    let begun = Instant::now();
    let image = Image::open(&request.path)?;
    image.check_fit(operation.record.terminal)?;
    require_free_pids(container, &image.manifest.pids)?;
    require_capabilities(container, &image.manifest.capabilities)?;
    let verify_ms = milliseconds(begun);

    let root = Pid::new(image.manifest.root_pid).map_err(|_| crate::image::ImageError::Damaged {
        path: request.path.clone(),
        file: crate::image::MANIFEST.into(),
        problem: "names an impossible pid",
    })?;
    root_files::put_back(container, &operation.record.volumes, &image)?;
    container.init()?.ask(&InitRequest::Expect { pid: root })?;
    let restored = Instant::now();
    let result = run_criu(container, request, image, root).and_then(|()| adopt(container));
    if result.is_err() {
        clear(container);
    }
    result.map(|()| Report {
        path: request.path.clone(),
        application_pid: root.get(),
        verify_ms,
        restore_ms: milliseconds(restored),
        total_ms: milliseconds(begun),
    })
}

fn run_criu(container: &Container, request: &Request, image: Image, root: Pid) -> Result<(), Error> {
    let bundle = container.criu_bundle()?;
    let init = container.pid();
    let mut launch = Launch::new(&bundle, container.config.limits.criu())
        .in_namespaces_of(init)?
        .in_cgroups(&destination_cgroups(container)?)?
        .with_capabilities(capabilities::for_restore(init)?);
    if let Some(value) = application::oom_score_adj(init) {
        launch = launch.with_oom_score_adj(value);
    }
    let highest = image.manifest.pids.last().copied().unwrap_or(PID_BASE).max(PID_BASE);
    let options = RestoreOptions {
        images: launch.pass(image.directory.into()),
        inherited: inherited_streams(&mut launch, init, &image.manifest.stdio)?,
        common: Common {
            tcp: request.tcp.unwrap_or(image.manifest.tcp).into(),
            external_unix_sockets: image.manifest.external_unix_sockets,
            file_locks: image.manifest.file_locks,
            shell_job: false,
        },
    };
    let log = crate::logs::new_log(&container.config, container.key(), "restore")?;
    let work = crate::logs::work_directory(&container.config)?;
    let restored = launch.start(&work, &log)?.restore(&options, &mut |stage| match stage {
        Notification::SetupNamespaces => inherit_orphans(container, root).map_err(|e| e.report()),
        // Before anything of it runs: its next fork must get a number that it has not used yet.
        Notification::PostRestore => container.set_last_pid(highest).map_err(|e| e.report()),
        Notification::PreResume => privilege::verify(container, root.get()).map_err(|e| e.report()),
        _ => Ok(()),
    });
    crate::logs::copy(&log, request.work_path.as_deref(), "restore.log");
    let pid = restored?;
    crate::logs::forget(&log);
    if pid != root.get() {
        return Err(crate::image::ImageError::Damaged {
            path: request.path.clone(),
            file: crate::image::MANIFEST.into(),
            problem: "names another root than CRIU restored",
        }
        .into());
    }
    Ok(())
}

/// Before the rest of the tree is forked below it.
fn inherit_orphans(container: &Container, root: Pid) -> Result<(), Error> {
    let found = application::host_pid_of(root.get(), container.application_cgroup()?.pids());
    let heir = found.ok_or(io::ErrorKind::NotFound.into()).and_then(orphans::make_heir);
    heir.map_err(|e| Error::io("prepare the restored root in", Path::new("/proc"), e))
}

fn adopt(container: &Container) -> Result<(), Error> {
    let init = container.init()?;
    match init.ask(&InitRequest::Adopt)? {
        Reply::Running { .. } => Ok(()),
        other => Err(init.nonsense(&other)),
    }
}

/// Kills what a failed restore has left and lets the init go back to standby. The first error is the caller's.
fn clear(container: &Container) {
    let killed = container
        .application_cgroup()
        .map(|cgroup| cgroup.kill_all(container.config.limits.freeze()).map_err(|e| e.to_string()));
    if !matches!(killed, Ok(Ok(()))) {
        tracing::error!(
            container = container.key().id(),
            ?killed,
            "what a failed restore left could not be killed"
        );
    }
    if let Err(e) = container.init().and_then(|init| init.ask(&InitRequest::Abandon)) {
        tracing::error!(container = container.key().id(), error = %e.report(), "the init did not go back to standby");
    }
}

/// The cgroups of the container, with the application's own in place of the one that it lies in.
fn destination_cgroups(container: &Container) -> Result<Vec<PathBuf>, Error> {
    let application = container.application_cgroup()?;
    let directory = application.directory().to_path_buf();
    application.make().map_err(|e| Error::io("make", &directory, e))?;
    let parent = directory.parent();
    let all = cgroup::directories_of(container.pid())
        .map_err(|e| Error::io("find the cgroups of", Path::new("/proc"), e))?;
    Ok(all
        .into_iter()
        .map(|group| if Some(group.as_path()) == parent { directory.clone() } else { group })
        .collect())
}

/// Each stream of the image becomes the container's stream of the same number.
fn inherited_streams(
    launch: &mut Launch<'_>,
    init: i32,
    streams: &[crate::image::Stream],
) -> Result<Vec<InheritedFd>, Error> {
    let mut seen = HashSet::new();
    let mut inherited = Vec::new();
    for stream in streams.iter().filter(|stream| stream.number < 3) {
        if !seen.insert(&stream.key) {
            continue; // stdout and stderr are one
        }
        let fd = application::open_stream(init, stream.number)
            .map_err(|e| Error::io("open a standard stream of", Path::new("/proc"), e))?;
        inherited.push(InheritedFd { key: stream.key.clone(), fd: launch.pass(fd) });
    }
    Ok(inherited)
}

/// CRIU cannot hand on what the container does not allow, and says so in words of its own, or never.
fn require_capabilities(container: &Container, wanted: &BTreeSet<String>) -> Result<(), Error> {
    let allowed = capabilities::names(capabilities::allowed_in(container.pid())?);
    let missing: Vec<&str> = wanted.difference(&allowed).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::LacksCapabilities { id: container.key().id().into(), missing: missing.join(", ") })
}

/// Refuses early, and with names, what CRIU would fail on late: a number that someone else has.
fn require_free_pids(container: &Container, wanted: &BTreeSet<i32>) -> Result<(), Error> {
    match taken_numbers(container, wanted)?.into_iter().next() {
        Some((pid, command)) => Err(Error::PidTaken { id: container.key().id().into(), pid, command }),
        None => Ok(()),
    }
}

/// Which of these numbers someone has in the container, and who.
pub(crate) fn taken_numbers(
    container: &Container,
    wanted: &BTreeSet<i32>,
) -> Result<Vec<(i32, String)>, Error> {
    let taken = container.pids()?.into_iter().filter_map(|pid| {
        let numbers = application::inner_numbers(&BTreeSet::from([pid]));
        let number = numbers.intersection(wanted).next().copied()?;
        Some((number, application::command_of(pid)))
    });
    Ok(taken.collect())
}
