//! A checkpoint, step by step: freeze, dump, write the manifest, then run on, stand by or end.
//!
//! The application is frozen in its own cgroup before CRIU comes and stays so until the outcome is decided, so
//! that at every failure there is one way back: thaw.

use std::path::{Path, PathBuf};
use std::time::Instant;

use fastmig_control::{Policy, Request as InitRequest};
use fastmig_criu::{DumpOptions, Log, Session};
use fastmig_policy::Phase;
use serde::{Deserialize, Serialize};

use crate::clock::milliseconds;
use crate::container::{Container, Operation};
use crate::files::open_directory;
use crate::freeze::frozen::{Frozen, Held};
use crate::image::Draft;
use crate::inside::Images;
use crate::keeper::phase::InPhase;
use crate::resources::Resources;
use crate::root_files::RootFiles;
use crate::start_options::{TcpPolicy, Volumes};
use crate::state::Failure;
use crate::subject::{Subject, Terms};
use crate::tree::network_lock;
use crate::{at_rest, trace, Error};

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

/// How memory comes into a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// In rounds while the application runs, where its memory can be tracked; otherwise while it stands still.
    Auto,
    /// In rounds, or not at all.
    PreCopy,
    /// While it stands still, into CRIU's own files: `criu` alone can restore those.
    #[default]
    StopCopy,
}

impl std::str::FromStr for Strategy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "pre-copy" => Ok(Self::PreCopy),
            "stop-copy" => Ok(Self::StopCopy),
            _ => Err("a checkpoint's strategy is auto, pre-copy or stop-copy"),
        }
    }
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
    /// How memory comes into it.
    pub strategy: Strategy,
    /// Where memory comes in rounds, each page of what was written is compared with what the application had.
    pub verify: bool,
}

impl Request {
    /// A checkpoint at `path` with the defaults: one that programs of others can read.
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
            strategy: Strategy::default(),
            verify: false,
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
    /// What became of its memory.
    #[serde(flatten)]
    pub memory: Memory,
    /// What it took of the host.
    pub resources: Resources,
}

/// How memory came into a checkpoint.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Memory {
    /// How many rounds it took; none where all was written while the application stood still.
    pub rounds: u32,
    /// Bytes that were written, of those in its files: the others were there already.
    pub written: u64,
    /// Bytes of memory that the checkpoint before had.
    pub reused: u64,
    /// Bytes of the last round, in the freeze.
    pub last_round: u64,
    /// How many pages were compared with what the application had.
    pub verified_pages: Option<u64>,
    /// Why memory was not written in rounds, though that was wanted.
    pub plain_because: Option<String>,
}

impl Container {
    /// Checkpoints the application.
    ///
    /// # Errors
    /// When it is not running or cannot be dumped: it runs on as before then, and nothing is left at the path.
    pub fn checkpoint(&self, request: &Request) -> Result<Report, Error> {
        trace::operation(&self.config, &self.key, "checkpoint", || self.checkpointed(request))
    }

    fn checkpointed(&self, request: &Request) -> Result<Report, Error> {
        let mut operation = self.begin_warm("checkpoint")?;
        let _phase = InPhase::enter(self, Phase::Checkpointing);
        let measured = self.measured();
        let result = perform(self, &mut operation, request)
            .map(|report| Report { resources: measured.so_far(), ..report });
        match &result {
            Ok(report) => operation.record.last_checkpoint = Some(report.path.clone()),
            Err(e) => operation.record.last_failure = Some(Failure::now("checkpoint", e)),
        }
        operation.save()?;
        result
    }
}

fn perform(container: &Container, operation: &mut Operation, request: &Request) -> Result<Report, Error> {
    let terms = Terms {
        tcp: request.tcp.unwrap_or(operation.record.tcp),
        external_unix_sockets: request.external_unix_sockets,
        file_locks: request.file_locks,
    };
    let subject = Subject::of(container, terms)?;
    let mut plain_because = None;
    if request.strategy != Strategy::StopCopy {
        match in_rounds(container, operation, request, &subject) {
            Err(e @ (Error::Untracked { .. } | Error::View(_) | Error::Paused { .. }))
                if request.strategy == Strategy::Auto =>
            {
                tracing::warn!(reason = %e.report(), "memory is written while the application stands still");
                plain_because = Some(e.report());
            }
            result => return result,
        }
    }
    plain(container, operation, request, &subject, plain_because)
}

fn in_rounds(
    container: &Container,
    operation: &mut Operation,
    request: &Request,
    subject: &Subject,
) -> Result<Report, Error> {
    if operation.record.paused {
        return Err(Error::Paused { id: container.key().id().into(), action: "track" });
    }
    at_rest::take(container, operation, request, subject)
}

fn plain(
    container: &Container,
    operation: &mut Operation,
    request: &Request,
    subject: &Subject,
    plain_because: Option<String>,
) -> Result<Report, Error> {
    let draft = Draft::begin(&request.path, request.replaces)?;
    let volumes = request.volumes.as_ref().unwrap_or(&operation.record.volumes);
    let mut files = RootFiles::begin(container, request.files.then_some(volumes))?;
    files.pack(draft.directory(), &subject.cgroup.pids())?;
    // Started before the freeze: its start-up costs the application nothing.
    let ready = start_criu(subject, &draft, request)?;

    let begun = Instant::now();
    let frozen = Frozen::enter(container, operation.record.paused)?;
    let processes = subject.cgroup.pids();
    subject.require_whole_tree(&processes)?;
    let manifest = subject.describe(&operation.record, &processes)?;
    let held = run(subject, ready, request)?;
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
        // Its end is decided: it must not run again, not even for a moment.
        frozen.keep();
        end(container, request.after)?;
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
        memory: Memory { written: bytes, plain_because, ..Memory::default() },
        resources: Resources::default(),
    })
}

pub(crate) fn end(container: &Container, after: After) -> Result<(), Error> {
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
    log: Log,
    /// Where its images are, if that is not where they belong.
    own: Option<Images>,
}

fn start_criu(subject: &Subject, draft: &Draft, request: &Request) -> Result<Ready, Error> {
    let mut launch = subject.launch()?;
    let own = subject.inside.as_ref().map(|inside| Images::make(inside, draft.directory())).transpose()?;
    let images = launch.pass(match &own {
        Some(own) => own.open()?,
        None => open_directory(draft.directory())?,
    });
    let options = subject.options(&mut launch, images, request.after != After::Run)?;
    let config = &subject.container.config;
    let log = crate::logs::new_log(config, subject.container.key(), "dump")?;
    let work = crate::logs::work_directory(config)?;
    Ok(Ready { session: launch.start(&work, &log)?, options, log, own })
}

/// Where the caller wants them too.
pub(crate) fn hand_out_logs(subject: &Subject, log: &Path, request: &Request) {
    crate::logs::copy(log, request.work_path.as_deref(), "dump.log");
    // podman puts it into its archive.
    if let Ok(work) = crate::logs::work_directory(&subject.container.config) {
        crate::logs::copy(&work.join(STATISTICS), request.work_path.as_deref(), STATISTICS);
    }
}

/// Dumps. An application that is to end does not run again: CRIU leaves its connections locked, and the second
/// names that it gave to files with no name left that the checkpoint knows.
fn run(subject: &Subject, ready: Ready, request: &Request) -> Result<Option<Held>, Error> {
    let Ready { session, options, log, own } = ready;
    let result = session.dump(&options);
    hand_out_logs(subject, log.written(), request);
    result?;
    own.map(Images::take_over).transpose()?;
    let ends = request.after != After::Run;
    // Connections that are to live on elsewhere must not hear of the end of their sockets here.
    let holds = ends && subject.terms.tcp == TcpPolicy::Keep;
    let table = holds.then(|| network_lock::name(log.written()).unwrap_or_default());
    let held = ends.then(|| Held::new(subject.container.pid(), subject.cgroup.clone(), table));
    log.forget();
    Ok(held)
}
