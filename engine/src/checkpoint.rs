//! A checkpoint, step by step: freeze, dump, write the manifest, then run on, stand by or end.
//!
//! The application is frozen in its own cgroup before CRIU comes and stays so until the outcome is decided, so
//! that at every failure there is one way back: thaw.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fastmig_control::{Policy, Request as InitRequest};
use fastmig_criu::{Bundle, Common, DumpOptions, Launch, Session};
use serde::{Deserialize, Serialize};

use crate::cgroup::ApplicationCgroup;
use crate::clock::milliseconds;
use crate::container::{Container, Operation};
use crate::image::{self, Draft, Manifest};
use crate::root_files::RootFiles;
use crate::start_options::{TcpPolicy, Volumes};
use crate::state::{ApplicationState, Failure, Record};
use crate::watchdog::Watchdog;
use crate::{application, capabilities, network_lock, privilege, Error};

pub use crate::start_options::TcpPolicy as Tcp;

/// What becomes of the application once it is dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// It runs on.
    Run,
    /// It ends, and the container waits in standby.
    Standby,
    /// It ends, and the container with it.
    Exit,
}

/// A checkpoint that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where it is to stand: nothing or an empty directory may be there.
    pub path: PathBuf,
    /// A checkpoint that stands there already gives way to the new one, once that is whole.
    pub replaces: bool,
    /// What becomes of the application.
    pub after: After,
    /// What becomes of established TCP connections; the container's annotation when not given.
    pub tcp: Option<TcpPolicy>,
    /// Unix sockets connected to the outside are allowed; restored, their peer is gone.
    pub external_unix_sockets: bool,
    /// File locks are allowed, and restored.
    pub file_locks: bool,
    /// What was written in the root file system since the container was made travels along.
    pub files: bool,
    /// The volumes that travel with them; the container's annotation when not given.
    pub volumes: Option<Volumes>,
    /// Where CRIU's log is put too, as `dump.log`.
    pub work_path: Option<PathBuf>,
}

impl Request {
    /// A checkpoint at `path` with the defaults.
    #[must_use]
    pub fn new(path: PathBuf, after: After) -> Self {
        Self {
            path,
            replaces: false,
            after,
            tcp: None,
            external_unix_sockets: true,
            file_locks: true,
            files: false,
            volumes: None,
            work_path: None,
        }
    }
}

/// What a checkpoint came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it stands.
    pub path: PathBuf,
    /// What became of the application.
    pub after: After,
    /// Bytes in its files.
    pub bytes: u64,
    /// How many processes it holds.
    pub processes: usize,
    /// Files, directories, links and deletions in the root file system that travel along.
    pub files: u64,
    /// From the freeze to the thaw or the end, in milliseconds.
    pub frozen_ms: u64,
    /// CRIU's part of it, in milliseconds.
    pub dump_ms: u64,
}

impl Container {
    /// Checkpoints the application.
    ///
    /// # Errors
    /// When it is not running or cannot be dumped: it runs on as before then, and nothing is left at the path.
    pub fn checkpoint(&self, request: &Request) -> Result<Report, Error> {
        let mut operation = self.begin_warm("checkpoint")?;
        let result = perform(self, &mut operation, request);
        match &result {
            Ok(report) => operation.record.last_checkpoint = Some(report.path.clone()),
            Err(e) => operation.record.last_failure = Some(Failure::now("checkpoint", e)),
        }
        operation.save()?;
        result
    }
}

fn perform(container: &Container, operation: &mut Operation<'_>, request: &Request) -> Result<Report, Error> {
    let status = container.init()?.status()?;
    let Ok(root) = status.state.running() else {
        return Err(container.wrong_state("checkpoint", ApplicationState::Standby));
    };
    let bundle = container.criu_bundle()?;
    let draft = Draft::begin(&request.path, request.replaces)?;
    let cgroup = container.application_cgroup()?;
    let record = &operation.record;
    let dump = Dump { container, record, request, bundle, cgroup, root: root.get() };
    let volumes = request.volumes.as_ref().unwrap_or(&record.volumes);
    let mut files = RootFiles::begin(container, request.files.then_some(volumes))?;
    files.pack(draft.directory(), &dump.cgroup.pids())?;
    // Started before the freeze: its start-up costs the application nothing.
    let ready = dump.start_criu(&draft)?;

    let begun = Instant::now();
    let frozen = Frozen::enter(container, operation.record.paused)?;
    let processes = dump.cgroup.pids();
    dump.require_whole_tree(&processes)?;
    let manifest = dump.describe(&processes)?;
    let held = dump.run(ready)?;
    files.pack(draft.directory(), &processes)?;
    fastmig_criu::mend_timers(draft.directory()).map_err(|e| Error::io("mend", draft.directory(), e))?;
    let dump_ms = milliseconds(begun);
    // What runs on is not kept waiting for checksums; what ends must not end before the checkpoint is whole.
    let bytes = if request.after == After::Run {
        frozen.leave(container)?;
        draft.publish(manifest)?
    } else {
        let bytes = draft.publish(manifest)?;
        operation.record.network_lock = held.and_then(Held::keep);
        frozen.end(container, request.after)?;
        bytes
    };
    Ok(Report {
        path: request.path.clone(),
        after: request.after,
        bytes,
        processes: processes.len(),
        files: files.entries(),
        frozen_ms: if request.after == After::Run { dump_ms } else { milliseconds(begun) },
        dump_ms,
    })
}

fn end(container: &Container, after: After) -> Result<(), Error> {
    if after == After::Standby {
        return container.end_application();
    }
    container.init()?.ask(&InitRequest::OnExit { policy: Policy::End })?;
    let cgroup = container.application_cgroup()?;
    cgroup
        .kill_all(container.config.limits.freeze())
        .map_err(|e| Error::io("kill the application in", cgroup.directory(), e))
}

/// CRIU's figures of its last dump.
const STATISTICS: &str = "stats-dump";

/// A CRIU that waits to be told to dump.
struct Ready {
    session: Session,
    options: DumpOptions,
    log: PathBuf,
}

/// All that a dump needs to know.
struct Dump<'a> {
    container: &'a Container,
    record: &'a Record,
    request: &'a Request,
    bundle: Bundle,
    cgroup: ApplicationCgroup,
    root: i32,
}

impl Dump<'_> {
    fn tcp(&self) -> TcpPolicy {
        self.request.tcp.unwrap_or(self.record.tcp)
    }

    /// CRIU dumps what is below the root, and nothing is to be lost in silence.
    fn require_whole_tree(&self, processes: &BTreeSet<i32>) -> Result<(), Error> {
        let root = application::host_pid_of(self.root, processes.iter().copied());
        let tree = root.map(application::tree_of).unwrap_or_default();
        match processes.iter().find(|pid| !tree.contains(pid) && !application::is_zombie(**pid)) {
            None => Ok(()),
            Some(&pid) => Err(Error::Astray {
                id: self.container.key().id().into(),
                command: application::command_of(pid),
            }),
        }
    }

    fn describe(&self, processes: &BTreeSet<i32>) -> Result<Manifest, Error> {
        let record = self.record;
        let stdio = application::streams(self.container.pid())
            .map_err(|e| Error::io("read the streams of", Path::new("/proc"), e))?;
        Ok(Manifest {
            format: image::FORMAT,
            created: crate::clock::now(),
            image: record.image.clone(),
            command: record.command.clone(),
            criu_version: self.bundle.version().into(),
            kernel: kernel_release(),
            architecture: std::env::consts::ARCH.into(),
            cpu_features: image::cpu_features(),
            stdio,
            terminal: record.terminal,
            root_pid: self.root,
            pids: application::inner_numbers(processes),
            tcp: self.tcp(),
            external_unix_sockets: self.request.external_unix_sockets,
            file_locks: self.request.file_locks,
            capabilities: capabilities::names(privilege::held_by(processes)),
            files: Vec::new(),
        })
    }

    fn start_criu(&self, draft: &Draft) -> Result<Ready, Error> {
        let streams = application::streams(self.container.pid())
            .map_err(|e| Error::io("read the streams of", Path::new("/proc"), e))?;
        let mut launch = Launch::new(&self.bundle, self.container.config.limits.criu())
            .in_namespaces_of(self.container.pid())?
            .with_capabilities(capabilities::for_dump());
        let options = DumpOptions {
            pid: self.root,
            images: launch.pass(open_directory(draft.directory())?),
            freezer: Some(launch.pass(open_directory(self.cgroup.directory())?)),
            external: streams.into_iter().map(|s| s.key).filter(|key| key.starts_with("tty[")).collect(),
            common: Common {
                tcp: self.tcp().into(),
                external_unix_sockets: self.request.external_unix_sockets,
                file_locks: self.request.file_locks,
                shell_job: false,
            },
            ghost_limit: self.container.config.checkpoint.ghost_limit,
            freeze_timeout: u32::try_from(self.container.config.limits.freeze).unwrap_or(u32::MAX),
            leave_stopped: self.request.after != After::Run,
        };
        let log = crate::logs::new_log(&self.container.config, self.container.key(), "dump")?;
        let work = crate::logs::work_directory(&self.container.config)?;
        Ok(Ready { session: launch.start(&work, &log)?, options, log })
    }

    /// Connections that are to live on elsewhere must not hear of the end of their sockets here.
    fn holds_connections(&self) -> bool {
        self.tcp() == TcpPolicy::Keep && self.request.after != After::Run
    }

    /// Dumps. An application that is to end does not run again: CRIU leaves its connections locked, and the second
    /// names that it gave to files with no name left that the checkpoint knows.
    fn run(&self, ready: Ready) -> Result<Option<Held>, Error> {
        let Ready { session, options, log } = ready;
        let result = session.dump(&options);
        crate::logs::copy(&log, self.request.work_path.as_deref(), "dump.log");
        // podman puts it into its archive.
        let statistics = crate::logs::work_directory(&self.container.config)?.join(STATISTICS);
        crate::logs::copy(&statistics, self.request.work_path.as_deref(), STATISTICS);
        result?;
        let table = self.holds_connections().then(|| network_lock::name(&log).unwrap_or_default());
        let held = (self.request.after != After::Run).then(|| Held {
            pid: self.container.pid(),
            cgroup: self.cgroup.clone(),
            table,
            release: true,
        });
        crate::logs::forget(&log);
        Ok(held)
    }
}

/// A dumped application whose tasks are stopped and whose connections may be locked; on drop both are undone, for it
/// is to run on after all.
struct Held {
    pid: i32,
    cgroup: ApplicationCgroup,
    table: Option<String>,
    release: bool,
}

impl Held {
    /// The application will come back from its checkpoint: the lock stays, under this name.
    fn keep(mut self) -> Option<String> {
        self.release = false;
        std::mem::take(&mut self.table)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.release {
            return;
        }
        self.cgroup.signal_all(nix::sys::signal::Signal::SIGCONT);
        let Some(table) = &self.table else { return };
        if let Err(e) = network_lock::release(self.pid, table) {
            tracing::error!(table, error = %e, "the lock on the connections stays");
        }
    }
}

/// The application, frozen; thawed again on drop unless it was paused before or shall stay so.
struct Frozen {
    cgroup: ApplicationCgroup,
    thaw: bool,
    _watchdog: Option<Watchdog>,
}

impl Frozen {
    fn enter(container: &Container, paused: bool) -> Result<Self, Error> {
        let cgroup = container.application_cgroup()?;
        if paused {
            return Ok(Self { cgroup, thaw: false, _watchdog: None });
        }
        let watchdog = Watchdog::start(&cgroup).map_err(|e| Error::io("start", Path::new("/bin/sh"), e))?;
        container.freeze()?;
        Ok(Self { cgroup, thaw: true, _watchdog: Some(watchdog) })
    }

    fn leave(mut self, container: &Container) -> Result<(), Error> {
        let result = if self.thaw { self.cgroup.thaw() } else { Ok(()) };
        self.thaw = false;
        result.map_err(|e| Error::io("thaw the application of", Path::new(container.key().id()), e))
    }

    /// Its end is decided: it must not run again, not even for a moment.
    fn end(mut self, container: &Container, after: After) -> Result<(), Error> {
        self.thaw = false;
        end(container, after)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.thaw {
            if let Err(e) = self.cgroup.thaw() {
                tracing::error!(error = %e, "the application could not be thawed");
            }
        }
    }
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    File::open(path).map(OwnedFd::from).map_err(|e| Error::io("open", path, e))
}

fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}
