//! The destination of rounds: memory that is in its place before the application comes.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use fastmig_criu::view::{self, AreaSpec, Content, Limits, Placed, RestoreView, Span};
use fastmig_criu::{ImageSource, Launch, LazySocket, Log, Notification, RestoreOptions, Session};
use fastmig_memory::fill::Missing;
use fastmig_memory::parallel;
use fastmig_memory::spans::{common, union, without};

use super::headroom;
use super::owed::Debt;
use super::plan::{is_holder, Area, Layout, Mapping, Pages, Plan};
use super::roomy::{Front, Roomy};
use super::shared::Segments;
use super::spool::Spool;
use crate::container::Container;
use crate::image::ImageError;
use crate::Error;

/// Where a plan comes from, in messages.
const STREAM: &str = "stream";
/// CRIU's image of who is whose child.
const TREE: &str = "pstree.img";
/// What the areas of an application may take of the address space: reserved mostly, not used.
const MOST_BYTES: u64 = 16 << 40;
/// How long CRIU may take for a command: moving areas copies them in the worst case.
const COMMAND: Duration = Duration::from_secs(60);
/// How long huge pages are made for while rounds wait.
const COLLAPSE: Duration = Duration::from_secs(10);

/// How long CRIU may take to hand over what it has said that it has handed over.
const HANDED: Duration = Duration::from_secs(5);

/// Brings what processes miss.
pub(crate) trait Takes: Sync {
    /// The userfaultfd of one of them.
    ///
    /// # Errors
    /// When it is gone.
    fn take(&self, process: i32, uffd: OwnedFd) -> io::Result<()>;
}

/// A CRIU that waits to restore, and whose memory is filled meanwhile.
#[derive(Debug)]
pub(crate) struct Filled {
    session: Session,
    options: RestoreOptions,
    pub(crate) log: Log,
    view: Arc<RwLock<RestoreView>>,
    spool: Spool,
    /// CRIU's working directory.
    work: PathBuf,
    /// Whose memory this becomes.
    container: Container,
    rounds: u32,
    areas: Vec<Area>,
    segments: Segments,
    mappings: Option<Vec<Mapping>>,
    /// What follows when the application runs.
    debt: Option<Debt>,
    /// While the first round comes.
    ahead: Option<Roomy>,
}

/// Where the content of a round goes.
#[derive(Debug)]
pub struct Room {
    layout: Layout,
    view: Arc<RwLock<RestoreView>>,
    segments: Segments,
    /// Huge pages are made up to here.
    front: Option<Arc<Front>>,
}

impl Room {
    /// Puts `content` where it belongs.
    ///
    /// # Errors
    /// When there is no such part of an image, or no room left.
    pub fn write(&self, image: &str, offset: u64, content: &[u8]) -> io::Result<()> {
        let runs =
            self.layout.runs(image, offset, content.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(front) = &self.front {
            front.wait_for(offset.saturating_add(content.len() as u64));
        }
        let view = read(&self.view);
        let mut rest = content;
        for run in runs {
            let length = usize::try_from(run.length).map_err(|_| io::ErrorKind::InvalidInput)?;
            let (part, after) = rest.split_at(length);
            if is_holder(run.process) {
                self.segments.write(&view, &run, part).map_err(explain)?;
            } else {
                view.write(run.process, run.address, part).map_err(explain)?;
            }
            rest = after;
        }
        Ok(())
    }
}

/// Who fills the memory of a process that is gone hears of no reason.
fn explain(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::ESRCH) {
        return error;
    }
    let text = "the CRIU that was to restore it was killed; see in the kernel's log whether the container's memory ran out";
    io::Error::new(error.kind(), text)
}

impl Filled {
    /// Starts CRIU, with `launch` in the right place already.
    pub(crate) fn start(
        container: &Container,
        launch: Launch<'_>,
        options: RestoreOptions,
    ) -> Result<Self, Error> {
        crate::inside::refuse_rounds(container)?;
        let spool = Spool::make(container)?;
        let command = COMMAND.min(container.config.limits.criu());
        let view = RestoreView::new(Limits { bytes: MOST_BYTES, command })?;
        let mut launch = launch.with_restore_view(&view)?;
        let options = RestoreOptions { images: launch.pass_directory(spool.open()?), ..options };
        let log = crate::logs::new_log(&container.config, container.key(), "restore")?;
        let work = crate::logs::work_directory(&container.config)?;
        let session = launch.start(&work, &log)?;
        let view = Arc::new(RwLock::new(view));
        let container = container.clone();
        Ok(Self {
            session,
            options,
            log,
            view,
            spool,
            work,
            container,
            rounds: 0,
            areas: Vec::new(),
            segments: Segments::default(),
            mappings: None,
            debt: None,
            ahead: None,
        })
    }

    /// CRIU's process, as the host counts it.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.session.pid()).unwrap_or_default()
    }

    /// Fails when CRIU was killed while it waits.
    pub(super) fn require_criu(&mut self) -> Result<(), Error> {
        Ok(self.session.require_alive("restore")?)
    }

    /// Makes room for a round.
    pub(crate) fn round(&mut self, plan: &[u8]) -> Result<Room, Error> {
        let plan = Plan::decode(plan).ok_or_else(|| damaged("says of memory what cannot be"))?;
        if plan.number != self.rounds + 1 || self.mappings.is_some() {
            return Err(damaged("comes out of turn"));
        }
        self.rounds = plan.number;
        // What is emptied now stays so.
        self.ahead = None;
        if plan.number == 1 || !plan.owed.is_empty() {
            self.require_headroom(&plan)?;
        }
        let mut view = write(&self.view);
        self.segments.follow(&mut view, &plan)?;
        for pages in plan.forgotten.iter().filter(|pages| !is_holder(pages.process)) {
            view.discard(pages.process, &self.inside(pages))?;
        }
        if plan.mappings.is_none() {
            view.lay_out(&plan.areas.iter().map(spec).collect::<Vec<_>>())?;
            self.areas.clone_from(&plan.areas);
        }
        self.debt = Debt::of(plan.number, &plan.owed);
        for owed in &plan.owed {
            // What came of it in earlier rounds, or with a huge page, would be taken for its content.
            view.discard(owed.process, &self.inside(owed))?;
        }
        drop(view);
        let layout = Layout::of(&plan);
        if plan.number == 1 {
            self.ahead = Some(Roomy::begin(Arc::clone(&self.view), &layout));
        }
        self.mappings = plan.mappings;
        let front = self.ahead.as_ref().map(Roomy::front);
        Ok(Room { layout, view: Arc::clone(&self.view), segments: self.segments.clone(), front })
    }

    /// The application stands still at the source.
    pub(crate) fn has_all_rounds(&self) -> bool {
        self.mappings.is_some()
    }

    /// Before anything comes: whoever runs out of memory later is killed, and cannot say why.
    fn require_headroom(&self, plan: &Plan) -> Result<(), Error> {
        let spans = plan.pages.iter().chain(&plan.owed).flat_map(Pages::spans);
        let needed = spans.map(|span| span.end - span.start).sum();
        match headroom::of(self.container.pid()) {
            Some(left) if left < needed => {
                Err(Error::TooLittleMemory { id: self.container.key().id().into(), needed, left })
            }
            _ => Ok(()),
        }
    }

    /// After the first round most of it is there: huge pages are made of it, which are copied by one entry of the page tables
    /// when CRIU forks. Not in a later round, whose length is what the freeze is foretold by.
    pub(crate) fn round_is_there(&mut self) -> Result<(), Error> {
        self.ahead = None;
        if self.rounds == 1 {
            let whole = write(&self.view).collapse(COLLAPSE)?;
            tracing::debug!(whole, "huge pages are made of what has arrived");
        }
        Ok(())
    }

    /// What of these pages lies in an area: the rest has gone with its area.
    fn inside(&self, pages: &Pages) -> Vec<Span> {
        let areas = self.areas.iter().filter(|area| area.process == pages.process);
        let cut = |span: Range<u64>| {
            let both = areas.clone().map(move |area| span.start.max(area.start)..span.end.min(area.end));
            both.filter(|span| !span.is_empty()).map(|span| Span { start: span.start, end: span.end })
        };
        pages.spans().flat_map(cut).collect()
    }

    /// What follows when the application runs.
    pub(super) const fn debt(&self) -> Option<&Debt> {
        self.debt.as_ref()
    }

    /// Where it lies.
    pub(crate) fn missing(&self) -> &[Missing] {
        self.debt.as_ref().map(Debt::missing).unwrap_or_default()
    }

    /// Restores; `follow` is told of CRIU's stages. Whoever brings what is missing gets the userfaultfds.
    pub(crate) fn restore(
        self,
        images: &dyn ImageSource,
        brings: Option<&dyn Takes>,
        follow: &mut dyn FnMut(Notification) -> Result<(), String>,
    ) -> Result<(), Error> {
        let Self { session, options, view, spool, work, mappings, debt, ahead, .. } = self;
        drop(ahead);
        let mappings = mappings.ok_or_else(|| damaged("is not all there"))?;
        let path = spool.path();
        spool.take(images).map_err(|e| Error::io("write images into", path, e))?;
        let remainders = name_mappings(path, &mappings)?;
        let mut view = write(&view);
        view.align(&remainders)?;
        view.relate(&family(path)?)?;
        let missing = debt.as_ref().map(Debt::missing).unwrap_or_default();
        view.arrange(&mappings.iter().map(|mapping| placed(mapping, missing)).collect::<Vec<_>>())?;
        let mut doubt = None;
        let mut follow = |stage| {
            if stage == Notification::PreResume {
                if let Err(error) = view.taken() {
                    return Err(doubt.insert(error).to_string());
                }
            }
            follow(stage)
        };
        let Some(brings) = brings else {
            let restored = session.restore(&options, &mut follow);
            // CRIU can only say that it was told to stop.
            return match doubt {
                Some(doubt) => Err(doubt.into()),
                None => Ok(restored.map(drop)?),
            };
        };
        view::images::take_all_pages(path).map_err(|e| Error::io("prepare", path, e))?;
        let options = RestoreOptions { lazy: true, ..options };
        let restored = restore_owing(session, &options, &work, brings, &mut follow);
        doubt.map_or(restored, |doubt| Err(doubt.into()))
    }
}

/// Restores processes that miss some of their memory: each fault from then on is answered.
fn restore_owing(
    session: Session,
    options: &RestoreOptions,
    work: &Path,
    brings: &dyn Takes,
    follow: &mut dyn FnMut(Notification) -> Result<(), String>,
) -> Result<(), Error> {
    let failed = |e| Error::io("have memory follow through", work, e);
    let socket = LazySocket::listen(work).map_err(failed)?;
    let listener = socket.listener().map_err(failed)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receive = || LazySocket::receive(&listener, &stop, |pid, uffd| brings.take(pid, uffd));
        let mut handed = Some(scope.spawn(receive));
        let restored = session.restore(options, &mut |stage| {
            if let Some(handed) = (stage == Notification::PreResume).then(|| handed.take()).flatten() {
                let begun = Instant::now();
                while !handed.is_finished() && begun.elapsed() < HANDED {
                    std::thread::sleep(Duration::from_micros(200));
                }
                stop.store(true, Ordering::Release);
                match handed.join() {
                    Ok(Ok(true)) => {}
                    Ok(Err(e)) => return Err(format!("CRIU has not handed over its userfaultfds: {e}")),
                    _ => return Err("CRIU has not handed over its userfaultfds".to_owned()),
                }
            }
            follow(stage)
        });
        stop.store(true, Ordering::Release);
        restored
    })?;
    Ok(())
}

/// Lets CRIU say of each mapping which one it is, when it maps it. Where CRIU's own place for the mappings of a process should
/// lie, so that the largest keeps its huge pages.
fn name_mappings(directory: &Path, mappings: &[Mapping]) -> Result<Vec<(i32, u64)>, Error> {
    let mut of_process: BTreeMap<i32, Vec<(u64, u64)>> = BTreeMap::new();
    for mapping in mappings {
        of_process.entry(mapping.process).or_default().push((mapping.start, mapping.end));
    }
    // Also of processes that have none: their children may.
    let described = described(directory).map_err(|e| Error::io("list", directory, e))?;
    let processes: Vec<_> = described
        .into_iter()
        .map(|process| (process, of_process.remove(&process).unwrap_or_default()))
        .collect();
    if !of_process.is_empty() {
        return Err(damaged("names processes that are not there"));
    }
    let named = parallel::map_few(&processes, |(process, keys)| name_mappings_of(directory, *process, keys));
    let remainders: Vec<_> = named.into_iter().collect::<Result<_, _>>()?;
    view::images::parent_directory(directory).map_err(|e| Error::io("prepare", directory, e))?;
    Ok(remainders.into_iter().flatten().collect())
}

/// The same for one process, whose mappings are `keys`.
fn name_mappings_of(
    directory: &Path,
    process: i32,
    keys: &[(u64, u64)],
) -> Result<Option<(i32, u64)>, Error> {
    let path = directory.join(format!("mm-{process}.img"));
    let image = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    let named = view::images::key_mappings(&image, keys);
    let named = named.ok_or_else(|| damaged("names mappings that are not there"))?;
    std::fs::write(&path, named).map_err(|e| Error::io("write", &path, e))?;
    let largest = keys.iter().max_by_key(|(start, end)| end - start);
    let remainder = largest.and_then(|(start, _)| view::images::place_remainder(&image, *start));
    Ok(remainder.map(|remainder| (process, remainder)))
}

/// Who is whose child, so that each process inherits the areas of its own branch alone.
fn family(directory: &Path) -> Result<Vec<(i32, i32)>, Error> {
    let path = directory.join(TREE);
    let image = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    view::images::family(&image).ok_or_else(|| damaged("is of a tree that is none"))
}

/// The processes whose mappings are described by an image.
fn described(directory: &Path) -> io::Result<Vec<i32>> {
    let names = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    let process =
        |name: &std::ffi::OsString| name.to_str()?.strip_prefix("mm-")?.strip_suffix(".img")?.parse().ok();
    Ok(names.iter().filter_map(process).collect())
}

fn damaged(problem: &'static str) -> Error {
    ImageError::Damaged { path: STREAM.into(), file: "memory".into(), problem }.into()
}

fn spec(area: &Area) -> AreaSpec {
    let Area { process, start, end, no_reserve, no_huge } = *area;
    AreaSpec { process, start, end, no_reserve, no_huge }
}

fn ours(span: &fastmig_memory::Span) -> Span {
    Span { start: span.start, end: span.end }
}

fn placed(mapping: &Mapping, missing: &[Missing]) -> Placed {
    let theirs = |pages: &Pages| -> Vec<fastmig_memory::Span> {
        pages.spans().map(|span| fastmig_memory::Span { start: span.start, end: span.end }).collect()
    };
    let content = match &mapping.inherited {
        None => Content::Own,
        Some((own, absent)) => {
            // Its own that is missing must not be the parent's meanwhile, nor zeros.
            let of_it = missing.iter().find(|missing| missing.process == mapping.process);
            let own_missing = common(&theirs(own), of_it.map(|m| m.spans.as_slice()).unwrap_or_default());
            let own = without(&theirs(own), &own_missing);
            let absent = union(&theirs(absent), &own_missing);
            Content::Inherited {
                own: own.iter().map(ours).collect(),
                absent: absent.iter().map(ours).collect(),
            }
        }
    };
    Placed { process: mapping.process, start: mapping.start, end: mapping.end, content }
}

fn read(view: &RwLock<RestoreView>) -> RwLockReadGuard<'_, RestoreView> {
    view.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(view: &RwLock<RestoreView>) -> RwLockWriteGuard<'_, RestoreView> {
    view.write().unwrap_or_else(PoisonError::into_inner)
}
