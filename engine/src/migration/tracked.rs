//! The source of rounds: an application whose memory is tracked while it runs, and then dumped without it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fastmig_criu::view::{self, DumpView, HiddenMapping};
use fastmig_criu::{CriuError, ImageSink, Life, Log, PreparedDump};
use fastmig_memory::{Content, Last, Process, Reader, SharedTracker, Span, Tracker};

use super::early;
use super::owed::{OwedLayout, OwedMemory};
use super::plan::{is_holder, Area, Layout, Mapping, Pages, Plan, Run};
use super::shared;
use super::spool::Spool;
use super::withheld::{shared_with_children, Withheld};
use crate::container::Container;
use crate::subject::Subject;
use crate::tree::application;
use crate::{inside, Error};

/// A round of memory that is to travel.
#[derive(Debug)]
pub struct Round {
    /// What the destination is told: where its content belongs.
    pub plan: Vec<u8>,
    /// Its content.
    pub memory: Arc<RoundMemory>,
    /// Of the last round: what travels when the application has moved.
    pub owed: Option<Arc<OwedMemory>>,
    /// How long looking for it took.
    pub scan: Duration,
    /// Bytes of all memory that is tracked.
    pub tracked: u64,
    /// Processes of the application.
    pub processes: u32,
}

/// The content of a round, as it is in the processes now.
#[derive(Debug)]
pub struct RoundMemory {
    layout: Layout,
    readers: HashMap<i32, Arc<Reader>>,
    shared: shared::Readers,
    /// That of the CRIU which waits: without it nothing of this is of use. In the last round it dumps and ends, while content is
    /// still asked for.
    life: Option<Arc<Life>>,
}

impl RoundMemory {
    /// Names and sizes of its images.
    #[must_use]
    pub fn images(&self) -> Vec<(String, u64)> {
        self.layout.images()
    }

    /// What a part of an image is the content of.
    pub(crate) fn runs(&self, image: &str, offset: u64, length: u64) -> Option<Vec<Run>> {
        self.layout.runs(image, offset, length)
    }

    /// Fills `into` with what `image` has from `offset` on. Pages that are gone read as zeros: a later round says so.
    ///
    /// # Errors
    /// When there is no such part of an image, a process cannot be read, or the CRIU that waits was killed.
    pub fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.life.as_ref().is_some_and(|life| life.is_over()) {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, CRIU_IS_GONE));
        }
        let runs = self.layout.runs(image, offset, into.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let mut rest = into;
        for run in runs {
            let length = usize::try_from(run.length).map_err(|_| io::ErrorKind::InvalidInput)?;
            let (part, after) = rest.split_at_mut(length);
            match self.readers.get(&run.process) {
                _ if is_holder(run.process) => self.shared.read(&run, part)?,
                Some(reader) => reader.read(run.address, part)?,
                // It ended before it could be opened.
                None => part.fill(0),
            }
            rest = after;
        }
        Ok(())
    }
}

/// What the destination is told, whom no content comes for.
const CRIU_IS_GONE: &str = "the CRIU that was to dump the application at the source was killed";

/// A CRIU that waits to dump an application whose memory travels in rounds.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// Until it dumps.
    session: Option<PreparedDump>,
    life: Arc<Life>,
    pub(crate) log: Log,
    view: DumpView,
    /// Where CRIU puts its images, when they are to be passed on.
    spool: Option<Spool>,
    tracking: Tracking,
    shared: SharedTracker,
    readers: HashMap<i32, Arc<Reader>>,
    rounds: u32,
    /// What was told of in rounds and has not travelled.
    withheld: Withheld,
    /// What the destination has whole.
    mappings: Vec<Mapping>,
    /// The last plan, when it owes something.
    debt: Option<Vec<u8>>,
}

impl Tracked {
    /// Starts CRIU, and nothing else yet.
    pub(super) fn start(
        subject: &Subject,
        left: &[(i32, Range<u64>)],
        limit: Duration,
    ) -> Result<Self, Error> {
        let spool = Spool::make(&subject.container)?;
        let mut tracked = Self::start_within(subject, spool.open()?, true, limit)?;
        let span = |range: &Range<u64>| Span { start: range.start, end: range.end };
        let left = left.iter().map(|(process, range)| (*process, span(range))).collect();
        tracked.tracking.0 = tracked.tracking.0.take().map(|tracker| tracker.leaving_out(left));
        Ok(Self { spool: Some(spool), ..tracked })
    }

    /// The same, for a dump into the directory `images`, after which CRIU leaves the application stopped or not.
    pub(crate) fn start_in(subject: &Subject, images: OwnedFd, leave_stopped: bool) -> Result<Self, Error> {
        Self::start_within(subject, images, leave_stopped, subject.container.config.limits.criu())
    }

    fn start_within(
        subject: &Subject,
        images: OwnedFd,
        leave_stopped: bool,
        limit: Duration,
    ) -> Result<Self, Error> {
        let container = &subject.container;
        if subject.inside.is_some() {
            return Err(untracked(container, inside::NO_ROUNDS.into()));
        }
        let method = fastmig_memory::probe().map_err(|e| untracked(container, e.into()))?;
        let view = DumpView::new()?;
        let mut launch = subject.launch()?.within(limit).with_dump_view(&view)?;
        let images = launch.pass(images);
        let options = subject.options(&mut launch, images, leave_stopped)?;
        let log = crate::logs::new_log(&container.config, container.key(), "dump")?;
        let work = crate::logs::work_directory(&container.config)?;
        let session = launch.start(&work, &log)?.prepare_dump(&options)?;
        let life = session.life().map_err(|e| Error::io("watch the CRIU that logs to", log.written(), e))?;
        let tracking = Tracking(Some(Tracker::new(method)));
        Ok(Self {
            session: Some(session),
            life: Arc::new(life),
            log,
            view,
            spool: None,
            tracking,
            shared: SharedTracker::default(),
            readers: HashMap::new(),
            rounds: 0,
            withheld: Withheld::default(),
            mappings: Vec::new(),
            debt: None,
        })
    }

    /// Fails when CRIU was killed while it waits: nothing can come of it any more.
    pub(crate) fn require_criu(&mut self) -> Result<(), Error> {
        self.session.as_mut().map_or(Ok(()), |session| Ok(session.require_alive()?))
    }

    /// What CRIU does before it touches the application is done: it may freeze.
    pub(crate) fn ready(&mut self) -> Result<(), Error> {
        self.require_criu()?;
        self.session.as_mut().map_or(Ok(()), |session| Ok(session.ready()?))
    }

    /// The next round, while the application runs. When it is to owe, only what processes share travels.
    pub(crate) fn round(&mut self, subject: &Subject, owe: bool) -> Result<Round, Error> {
        self.require_criu()?;
        let births = births(&subject.container);
        let processes = processes(&subject.cgroup.pids());
        let tracker = self.tracking.0.as_mut().ok_or_else(|| over(&subject.container))?;
        let round = tracker.round(&processes).map_err(|e| untracked(&subject.container, e.into()))?;
        // Most writes before the second round are not worth watching, nor is a tree that grows.
        let steady = self.rounds > 0 && self::processes(&subject.cgroup.pids()) == processes;
        let shared = self.shared.round(&processes, steady.then_some((tracker, births)));
        let scan = round.cost.scan + shared.scan;
        tracing::debug!(round = self.rounds + 1, cost = ?round.cost, areas = round.areas.len(), shared = shared.areas.len(), "memory is looked through");
        let tracked =
            round.areas.iter().map(|area| area.end - area.start).sum::<u64>() + shared::size(&shared);
        let sent = if owe { self.withheld.keep(&round.pages, &round.common) } else { round.pages };
        self.withheld.forget(&sent);
        self.withheld.forget(&round.forgotten);
        let plan = Plan {
            number: self.next_number(),
            areas: round.areas.iter().map(area).collect(),
            pages: sent.iter().map(pages).chain(shared::pages(&shared.pages)).collect(),
            forgotten: round.forgotten.iter().map(pages).chain(shared::pages(&shared.forgotten)).collect(),
            owed: Vec::new(),
            mappings: None,
            shared: shared::areas(&shared),
        };
        self.made(subject, &processes, &plan, shared::Readers::of(shared), scan, tracked)
    }

    /// The last one, of a frozen application; CRIU does not see then what the destination has.
    pub(crate) fn last(&mut self, subject: &Subject, owe: bool) -> Result<Round, Error> {
        let processes = processes(&subject.cgroup.pids());
        let tracker = self.tracking.0.as_mut().ok_or_else(|| over(&subject.container))?;
        let last = tracker.last(&processes).map_err(|e| untracked(&subject.container, e.into()))?;
        let births = births(&subject.container);
        let shared = self.shared.last(&processes, Some((tracker, births)));
        let scan = last.cost.scan + shared.scan;
        tracing::info!(cost = ?last.cost, mappings = last.mappings.len(), shared = ?shared.scan, watched = shared.watched, "what was written last is known");
        self.hide(&last)?;
        self.view.hide_shared(&shared::hidden(&shared))?;
        self.withheld.forget(&last.discard);
        let sent = if owe || !self.withheld.is_empty() {
            self.withheld.keep(&last.pages, &shared_with_children(&last.mappings, &processes))
        } else {
            last.pages
        };
        let plan = Plan {
            number: self.next_number(),
            areas: Vec::new(),
            pages: sent.iter().map(pages).chain(shared::pages(&shared.pages)).collect(),
            forgotten: last.discard.iter().map(pages).chain(shared::pages(&shared.forgotten)).collect(),
            owed: self.withheld.owed(&last.mappings).iter().map(pages).collect(),
            mappings: Some(last.mappings.iter().map(mapping).collect()),
            shared: shared::areas(&shared),
        };
        self.mappings = plan.mappings.clone().unwrap_or_default();
        let tracked = last.mappings.iter().map(|mapping| mapping.end - mapping.start).sum::<u64>();
        let tracked = tracked + shared::size(&shared);
        self.made(subject, &processes, &plan, shared::Readers::of(shared), scan, tracked)
    }

    fn hide(&mut self, last: &Last) -> Result<(), Error> {
        let hidden = last.mappings.iter().map(|mapping| HiddenMapping {
            pid: mapping.process,
            start: mapping.start,
            end: mapping.end,
        });
        let hidden: Vec<_> = hidden.collect();
        Ok(self.view.hide(&hidden, &last.smaps)?)
    }

    fn next_number(&mut self) -> u32 {
        self.rounds += 1;
        self.rounds
    }

    fn made(
        &mut self,
        subject: &Subject,
        processes: &[Process],
        plan: &Plan,
        shared: shared::Readers,
        scan: Duration,
        tracked: u64,
    ) -> Result<Round, Error> {
        let wanted: BTreeSet<i32> = plan.pages.iter().chain(&plan.owed).map(|pages| pages.process).collect();
        self.readers.retain(|id, _| wanted.contains(id));
        for process in processes.iter().filter(|process| wanted.contains(&process.id)) {
            // Opened anew: after an exec the old one shows memory that is gone.
            match Reader::open(process.host) {
                Ok(reader) => drop(self.readers.insert(process.id, Arc::new(reader))),
                // It has ended.
                Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {}
                Err(e) => return Err(Error::io("read the memory in", subject.cgroup.directory(), e)),
            }
        }
        let encoded = plan.encode().map_err(|e| untracked(&subject.container, e.into()))?;
        let owed = OwedMemory::new(OwedLayout::of(plan.number, &plan.owed), self.readers.clone());
        let memory = Arc::new(RoundMemory {
            layout: Layout::of(plan),
            readers: self.readers.clone(),
            shared,
            life: plan.mappings.is_none().then(|| Arc::clone(&self.life)),
        });
        let processes = u32::try_from(processes.len()).unwrap_or(u32::MAX);
        self.debt = owed.is_some().then(|| encoded.clone());
        Ok(Round { plan: encoded, memory, owed, scan, tracked, processes })
    }

    /// Dumps the frozen application, but for what the destination has, into `sink`.
    pub(super) fn dump(self, sink: &mut dyn ImageSink) -> Result<Dumped, Error> {
        let Self { session, view, spool, tracking, mappings, debt, .. } = self;
        // Both are there until now.
        let (Some(session), Some(spool)) = (session, spool) else {
            return Ok(Dumped { tracking, mappings, debt, rseq: Vec::new() });
        };
        let path = spool.path();
        let passed = |e| Error::io("pass on", path, e);
        let (dumped, given) = early::while_dumping(&spool, sink, || session.dump());
        dumped?;
        let given = given.map_err(passed)?;
        view.check()?;
        fastmig_criu::mend_timers(path).map_err(|e| Error::io("mend", path, e))?;
        let rseq = view::rseq_areas(path).map_err(|e| Error::io("look at threads in", path, e))?;
        spool.give(&given, sink).map_err(passed)?;
        Ok(Dumped { tracking, mappings, debt, rseq })
    }
}

impl Tracked {
    /// Dumps the frozen application, but for what was read of it, into the directory that it was started with. Whether CRIU has
    /// left out exactly that is [`Tracked::check`]'s to say.
    pub(crate) fn dump_in_place(&mut self) -> Result<(), CriuError> {
        self.session.take().map_or(Ok(()), PreparedDump::dump)
    }

    /// Whether CRIU has dumped all that was not read, and has left out what was.
    pub(crate) fn check(&self) -> Result<(), Error> {
        Ok(self.view.check()?)
    }

    /// The application runs on, as it was.
    pub(crate) fn leave(self) {
        drop(self.tracking);
    }

    /// It ends: nothing has to be put in order.
    pub(crate) fn forget(self) {
        self.tracking.forget();
    }
}

/// A dumped application, whose memory is still tracked: to stop that takes time, which a freeze has not.
#[derive(Debug)]
pub(super) struct Dumped {
    tracking: Tracking,
    mappings: Vec<Mapping>,
    debt: Option<Vec<u8>>,
    rseq: Vec<(u64, u64)>,
}

impl Dumped {
    /// Where the kernel writes into its memory by itself.
    pub(super) fn rseq(&self) -> &[(u64, u64)] {
        &self.rseq
    }

    /// The last plan, when it owes something.
    pub(super) fn debt(&self) -> Option<&[u8]> {
        self.debt.as_deref()
    }

    /// What travelled in rounds.
    pub(super) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The application runs on, as it was.
    pub(super) fn leave(self) {
        drop(self.tracking);
    }

    /// It ends: nothing has to be put in order.
    pub(super) fn forget(self) {
        self.tracking.forget();
    }
}

/// A tracker. Given up, it leaves the application as it was.
#[derive(Debug)]
struct Tracking(Option<Tracker>);

impl Tracking {
    fn forget(mut self) {
        if let Some(tracker) = self.0.take() {
            tracker.end(false);
        }
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        if let Some(tracker) = self.0.take() {
            tracker.end(true);
        }
    }
}

/// Nothing from an init that cannot say.
fn births(container: &Container) -> fastmig_memory::Births {
    let asked = container.init().and_then(|init| init.births());
    asked.inspect_err(|e| tracing::debug!(error = %e.report(), "births are not known")).ok()
}

/// What a tracker must know of the processes; those that have ended are left out.
pub(crate) fn processes(pids: &BTreeSet<i32>) -> Vec<Process> {
    let relations = application::relations(pids);
    let inner: HashMap<i32, i32> = relations.iter().map(|relation| (relation.host, relation.inner)).collect();
    let process = |relation: &application::Relation| Process {
        host: relation.host,
        id: relation.inner,
        parent: inner.get(&relation.parent).copied(),
    };
    relations.iter().map(process).collect()
}

fn area(area: &fastmig_memory::Area) -> Area {
    let fastmig_memory::Area { process, start, end, no_reserve, no_huge } = *area;
    Area { process, start, end, no_reserve, no_huge }
}

fn pages(pages: &fastmig_memory::Pages) -> Pages {
    spans(pages.process, &pages.spans)
}

fn spans(process: i32, spans: &[Span]) -> Pages {
    Pages::new(process, spans.iter().map(|span| span.start..span.end))
}

fn mapping(mapping: &fastmig_memory::Mapping) -> Mapping {
    let fastmig_memory::Mapping { process, start, end, content } = mapping;
    let inherited = match content {
        Content::Own => None,
        Content::Inherited { own, absent } => Some((spans(*process, own), spans(*process, absent))),
    };
    Mapping { process: *process, start: *start, end: *end, inherited }
}

fn untracked(container: &Container, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Untracked { id: container.key().id().into(), source }
}

fn over(container: &Container) -> Error {
    Error::OutOfTurn { id: container.key().id().into(), action: "track" }
}

impl Container {
    /// Whether the memory of this container's application can travel while it runs, and by what method.
    ///
    /// # Errors
    /// Why not.
    pub fn trackable(&self) -> Result<&'static str, String> {
        if inside::is_wanted(self) {
            return Err(inside::NO_ROUNDS.into());
        }
        trackable()
    }
}

/// Whether an application's memory can be tracked on this host.
///
/// # Errors
/// Why not.
pub fn trackable() -> Result<&'static str, String> {
    match fastmig_memory::probe() {
        Ok(fastmig_memory::Method::WriteProtect) => Ok("asynchronous write-protection"),
        Ok(fastmig_memory::Method::SoftDirty) => Ok("soft-dirty bits"),
        Err(e) => Err(e.to_string()),
    }
}
