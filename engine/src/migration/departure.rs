//! The source: an application that leaves its container, and can go on there until it is fenced and after.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use fastmig_control::INIT_PATH;
use fastmig_criu::{ImageSink, Log, PageImage, ProcessMemory, StreamedDump};
use fastmig_policy::Phase;

use super::fingerprint::Fingerprint;
use super::mark::{Mark, Role};
use super::owed;
use super::throttle::{self, Usage};
use super::ticket::Ticket;
use super::tracked::{Dumped, Round, Tracked};
use super::Way;
use crate::container::{Container, Operation};
use crate::freeze::frozen::{self, Frozen, Held};
use crate::freeze::watchdog::Watchdog;
use crate::image::Manifest;
use crate::keeper::phase::InPhase;
use crate::root_files::RootFiles;
use crate::start_options::{Binds, TcpPolicy, Volumes};
use crate::state::Failure;
use crate::subject::{self, Subject};
use crate::trace::Traced;
use crate::tree::{application, network_lock, sockets};
use crate::Error;

/// A dump without memory takes seconds. Whoever is silent for longer gives the application back.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Under which terms it leaves.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What becomes of established TCP connections; the container's annotation when not given.
    pub tcp: Option<TcpPolicy>,
    /// What was written in the root file system since the container was made travels along.
    pub files: bool,
    /// The volumes whose content travels too; the container's annotation when not given.
    pub volumes: Option<Volumes>,
    /// What becomes of directories of the host that it may write to; the container's annotation when not given.
    pub binds: Option<Binds>,
    /// Those of them that are said to be the same on the other host.
    pub same: Vec<PathBuf>,
    /// Mappings, by process as the container numbers it, whose memory CRIU is to dump: what travelled in rounds was in doubt.
    pub left: Vec<(i32, Range<u64>)>,
}

/// An application that is to leave. Its container is locked; dropped before it is fenced, it runs on.
#[derive(Debug)]
pub struct Departure {
    id: String,
    traced: Traced,
    /// Told to whoever looks when the application ends meanwhile.
    _phase: Option<InPhase>,
    criu: Option<Ready>,
    held: Option<Held>,
    frozen: Option<Frozen>,
    /// Started before the freeze, for that takes milliseconds.
    watchdog: Option<Watchdog>,
    /// Dumped, while its memory is still tracked.
    dumped: Option<Dumped>,
    left_out: Vec<PageImage>,
    /// Mappings that do not travel in rounds.
    left: Vec<(i32, Range<u64>)>,
    /// The processor time that it uses while rounds go on.
    usage: Usage,
    files: RootFiles,
    subject: Subject,
    operation: Operation,
}

/// A CRIU that waits to be told to dump.
#[derive(Debug)]
enum Ready {
    Streamed { dump: StreamedDump, log: Log },
    Tracked(Box<Tracked>),
}

/// What is left to see to when CRIU has dumped.
enum Out {
    Streamed(Vec<PageImage>),
    Tracked(Dumped),
}

impl Ready {
    fn dump(self, sink: &mut dyn ImageSink) -> Result<Out, Error> {
        match self {
            Self::Streamed { dump, .. } => Ok(Out::Streamed(dump.dump(sink)?)),
            Self::Tracked(tracked) => tracked.dump(sink).map(Out::Tracked),
        }
    }

    fn log(&self) -> Log {
        match self {
            Self::Streamed { log, .. } => log.clone(),
            Self::Tracked(tracked) => tracked.log.clone(),
        }
    }
}

impl Container {
    /// Begins to move the application out; migration `id` decides about it until the departure is over.
    ///
    /// # Errors
    /// When it is not running, or paused, or its files cannot travel.
    pub fn depart(&self, id: &str, terms: &Terms) -> Result<Departure, Error> {
        let operation = self.begin_warm("migrate")?;
        if operation.record.paused {
            return Err(Error::Paused { id: self.key().id().into(), action: "migrate" });
        }
        let tcp = terms.tcp.unwrap_or(operation.record.tcp);
        let agreed = subject::Terms { tcp, external_unix_sockets: true, file_locks: true };
        let subject = Subject::of(self, agreed)?;
        let volumes = terms.volumes.as_ref().unwrap_or(&operation.record.volumes);
        let files = RootFiles::begin(self, terms.files.then_some(volumes))?;
        let (criu, held, frozen, dumped) = (None, None, None, None);
        let (left_out, usage, watchdog) = (Vec::new(), Usage::default(), None);
        let phase = InPhase::enter(self, Phase::Migrating);
        let traced = Traced::on(&self.config, &self.key, Some(id));
        traced.tell("began", "leave", None, None);
        Ok(Departure {
            id: id.into(),
            traced,
            _phase: phase,
            criu,
            held,
            frozen,
            watchdog,
            dumped,
            left_out,
            left: terms.left.clone(),
            usage,
            files,
            subject,
            operation,
        })
    }
}

impl Departure {
    /// What the destination must know before the freeze.
    ///
    /// # Errors
    /// When the container has gone.
    pub fn ticket(&self) -> Result<Ticket, Error> {
        self.describe(&BTreeSet::new()).map(|manifest| Ticket::of(&manifest))
    }

    fn describe(&self, processes: &BTreeSet<i32>) -> Result<Manifest, Error> {
        self.subject.describe(&self.operation.record, processes)
    }

    /// Packs what has changed in the files since the last time; once frozen, nothing is missing.
    ///
    /// # Errors
    /// When a file cannot be read, or `out` not be written.
    pub fn pack_files(&mut self, out: &mut dyn Write) -> Result<fastmig_rootfs::Summary, Error> {
        self.files.pack_into(out, &self.subject.cgroup.pids())
    }

    /// Starts CRIU, which then waits.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ready(&mut self, way: Way) -> Result<(), Error> {
        self.criu = Some(match way {
            Way::Stream => self.start_streaming()?,
            Way::Rounds => Ready::Tracked(Box::new(Tracked::start(&self.subject, &self.left, STANDSTILL)?)),
        });
        self.watchdog = Some(frozen::watchdog(&self.subject.container)?);
        Ok(())
    }

    fn start_streaming(&self) -> Result<Ready, Error> {
        let mut launch = self.subject.launch()?.within(STANDSTILL);
        let options = self.subject.options(&mut launch, -1, true)?;
        let config = &self.subject.container.config;
        let log = crate::logs::new_log(config, self.subject.container.key(), "dump")?;
        let work = crate::logs::work_directory(config)?;
        let dump = launch.start_dump(&work, &log, INIT_PATH.as_ref(), options)?;
        Ok(Ready::Streamed { dump, log })
    }

    /// The next round of memory; the last one, once it is frozen. What it is to owe travels when it has moved.
    ///
    /// # Errors
    /// When its memory cannot be tracked.
    pub fn round(&mut self, owe: bool) -> Result<Round, Error> {
        match &mut self.criu {
            Some(Ready::Tracked(tracked)) if self.frozen.is_some() => tracked.last(&self.subject, owe),
            Some(Ready::Tracked(tracked)) => {
                if self.operation.record.throttle.is_none() {
                    self.usage.look(&self.subject.container);
                }
                tracked.round(&self.subject, owe)
            }
            _ => Err(self.out_of_turn("track")),
        }
    }

    /// Takes so much of its processor time away, in percent, until it has left or runs on.
    ///
    /// # Errors
    /// When the container has no cgroup for that.
    pub fn throttle(&mut self, percent: u32) -> Result<(), Error> {
        throttle::throttle(&self.subject.container, &mut self.operation, &self.usage, percent)
    }

    /// What identifies the content of all memory of the dumped application.
    ///
    /// # Errors
    /// When a process cannot be read.
    pub fn fingerprint(&self) -> Result<Vec<u8>, Error> {
        let mappings = self.dumped.as_ref().map(Dumped::mappings).unwrap_or_default();
        let rseq = self.dumped.as_ref().map(Dumped::rseq).unwrap_or_default();
        Fingerprint::of(&self.subject.cgroup.pids(), mappings, rseq).map(|fingerprint| fingerprint.encode())
    }

    /// Freezes the application. Should our process die before [`Departure::fence`], it runs on by itself.
    ///
    /// # Errors
    /// When it does not freeze in time, or nobody is there to dump it: it runs then.
    pub fn freeze(&mut self) -> Result<(), Error> {
        if let Some(Ready::Tracked(tracked)) = &mut self.criu {
            tracked.ready()?;
        }
        self.operation.record.migration = Some(Mark::new(&self.id, Role::Leaving));
        self.operation.save()?;
        // Who waits for processor time does not come to be frozen.
        throttle::undo(&mut self.operation)?;
        let container = &self.subject.container;
        let watchdog = self.watchdog.take().map_or_else(|| frozen::watchdog(container), Ok)?;
        self.frozen = Some(Frozen::enter_watched(container, watchdog)?);
        Ok(())
    }

    /// Dumps the frozen application into `sink`, all but its memory.
    ///
    /// # Errors
    /// When CRIU fails, or the sink does; it can be resumed then.
    pub fn dump(&mut self, sink: &mut dyn ImageSink) -> Result<Manifest, Error> {
        let Some(ready) = self.criu.take() else { return Err(self.out_of_turn("dump")) };
        if self.frozen.is_none() {
            return Err(self.out_of_turn("dump"));
        }
        let log = ready.log();
        let (manifest, dumped) = self.describe_while_dumping(ready, sink);
        let keeps = self.subject.terms.tcp == TcpPolicy::Keep;
        let table = keeps.then(|| network_lock::name(log.written()).unwrap_or_default());
        // Also after a failure: whom CRIU left stopped is to run on.
        let pid = self.subject.container.pid();
        self.held = Some(Held::new(pid, self.subject.cgroup.clone(), table.clone()));
        // What CRIU says of a process that has left the tree explains less.
        let manifest = manifest?;
        match dumped? {
            Out::Streamed(left_out) => self.left_out = left_out,
            Out::Tracked(dumped) => self.dumped = Some(dumped),
        }
        log.forget();
        // Whoever settles this for us must find it.
        self.operation.record.network_lock = table;
        self.operation.save()?;
        Ok(manifest)
    }

    /// It stands still for both.
    fn describe_while_dumping(
        &self,
        ready: Ready,
        sink: &mut dyn ImageSink,
    ) -> (Result<Manifest, Error>, Result<Out, Error>) {
        let (subject, record) = (&self.subject, &self.operation.record);
        let describe = || {
            let processes = subject.cgroup.pids();
            subject.require_whole_tree(&processes)?;
            subject.describe(record, &processes)
        };
        std::thread::scope(|scope| {
            let described = scope.spawn(describe);
            let dumped = ready.dump(sink);
            // Nothing in it panics; asked once more it says why.
            (described.join().unwrap_or_else(|_| describe()), dumped)
        })
    }

    /// The memory of the dumped application, but for what travelled in rounds.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn memory(&self) -> Result<ProcessMemory, Error> {
        let processes = self.subject.cgroup.pids();
        let host_pid = |inner| application::host_pid_of(inner, processes.iter().copied());
        ProcessMemory::open(&self.left_out, host_pid)
            .map_err(|e| Error::io("read the memory in", self.subject.cgroup.directory(), e))
    }

    /// From here on the application stays frozen, also when we die: it may run elsewhere.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn fence(&mut self) -> Result<(), Error> {
        let Some(frozen) = self.frozen.take() else { return Err(self.out_of_turn("fence")) };
        if let Some(debt) = self.dumped.as_ref().and_then(Dumped::debt) {
            if let Err(e) = owed::write_down(&self.subject.container, debt) {
                self.frozen = Some(frozen);
                return Err(e);
            }
        }
        let mark = Mark { fenced: true, ..Mark::new(&self.id, Role::Leaving) };
        let before = self.operation.record.migration.replace(mark);
        if let Err(e) = self.operation.save() {
            self.operation.record.migration = before;
            self.frozen = Some(frozen);
            return Err(e);
        }
        frozen.keep();
        Ok(())
    }

    /// It runs on.
    ///
    /// # Errors
    /// When it cannot be thawed.
    pub fn resume(mut self) -> Result<(), Error> {
        self.criu = None;
        self.held = None;
        let thawed = match self.frozen.take() {
            Some(frozen) => frozen.leave(&self.subject.container),
            None => self
                .subject
                .cgroup
                .thaw()
                .map_err(|e| Error::io("thaw the application in", self.subject.cgroup.directory(), e)),
        };
        if let Err(e) = thawed {
            // Not forgotten: whoever settles this tries again.
            self.operation.record.migration =
                Some(Mark { fenced: true, ..Mark::new(&self.id, Role::Leaving) });
            self.operation.save()?;
            return Err(e);
        }
        self.forget_mark()?;
        throttle::undo(&mut self.operation)?;
        if let Some(dumped) = self.dumped.take() {
            dumped.leave();
        }
        Ok(())
    }

    /// It is decided that it runs elsewhere: whoever is connected to what has stayed here hears so now, and not when that is
    /// killed. Connections that are kept say nothing.
    pub fn hang_up(&self) {
        if self.subject.terms.tcp == TcpPolicy::Keep {
            return;
        }
        if let Err(error) = sockets::hang_up(self.subject.cgroup.pids(), self.subject.container.pid()) {
            tracing::warn!(%error, "a connection to an application that has moved stays until its end");
        }
    }

    /// It never runs again here; the container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed: it stays frozen.
    pub fn end(mut self) -> Result<(), Error> {
        if let Some(frozen) = self.frozen.take() {
            frozen.keep();
        }
        if let Some(held) = self.held.take() {
            self.operation.record.network_lock = held.keep();
        }
        if let Some(dumped) = self.dumped.take() {
            dumped.forget();
        }
        let _scope = self.traced.enter();
        self.subject.container.end_application()?;
        self.traced.tell("done", "leave", None, None);
        throttle::undo(&mut self.operation)?;
        owed::forget(&self.subject.container);
        self.operation.record.migration = None;
        self.operation.save()
    }

    /// Writes down why it did not leave.
    pub fn note_failure(&mut self, reason: &str) {
        self.traced.tell("failed", "leave", None, Some(reason));
        self.operation.record.last_failure = Some(Failure::because("migrate", reason));
    }

    fn forget_mark(&mut self) -> Result<(), Error> {
        owed::forget(&self.subject.container);
        self.operation.record.migration = None;
        self.operation.record.network_lock = None;
        self.operation.save()
    }

    fn is_fenced(&self) -> bool {
        self.operation.record.migration.as_ref().is_some_and(|mark| mark.fenced)
    }

    fn out_of_turn(&self, action: &'static str) -> Error {
        Error::OutOfTurn { id: self.subject.container.key().id().into(), action }
    }
}

impl Drop for Departure {
    /// Undecided: fenced, it waits for a decision; otherwise it runs on, by the guards' own drop.
    fn drop(&mut self) {
        if let Err(e) = throttle::undo(&mut self.operation) {
            tracing::error!(error = %e.report(), "an application stays slowed down");
        }
        if self.is_fenced() {
            if let Some(held) = self.held.take() {
                held.keep();
            }
        } else if self.operation.record.migration.is_some() {
            self.held = None;
            self.frozen = None;
            if let Err(e) = self.forget_mark() {
                tracing::warn!(error = %e.report(), "the mark of a migration that is over stays");
            }
        }
    }
}
