//! The destination of rounds: memory that is in its place before the application comes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use fastmig_criu::view::{self, AreaSpec, Content, Limits, Placed, RestoreView, Span};
use fastmig_criu::{ImageSource, Launch, LazySocket, Notification, RestoreOptions, Session};
use fastmig_memory::fill::Missing;
use fastmig_memory::spans::{common, union, without};

use super::owed::{Debt, Fetch};
use super::owing::Filling;
use super::plan::{Area, Layout, Mapping, Pages, Plan};
use super::spool::Spool;
use crate::container::Container;
use crate::image::ImageError;
use crate::Error;

/// Where a plan comes from, in messages.
const STREAM: &str = "stream";
/// What the areas of an application may take of the address space: reserved mostly, not used.
const MOST_BYTES: u64 = 16 << 40;
/// How long CRIU may take for a command: moving areas copies them in the worst case.
const COMMAND: Duration = Duration::from_secs(60);
/// How long huge pages are made for while rounds wait.
const COLLAPSE: Duration = Duration::from_secs(10);

/// How long CRIU may take to hand over what it has said that it has handed over.
const HANDED: Duration = Duration::from_secs(5);

/// A CRIU that waits to restore, and whose memory is filled meanwhile.
#[derive(Debug)]
pub(super) struct Filled {
    session: Session,
    options: RestoreOptions,
    pub(super) log: PathBuf,
    view: Arc<RwLock<RestoreView>>,
    spool: Spool,
    /// CRIU's working directory.
    work: PathBuf,
    rounds: u32,
    areas: Vec<Area>,
    mappings: Option<Vec<Mapping>>,
    /// What follows when the application runs.
    debt: Option<Debt>,
}

/// Where the content of a round goes.
#[derive(Debug)]
pub struct Room {
    layout: Layout,
    view: Arc<RwLock<RestoreView>>,
}

impl Room {
    /// Puts `content` where it belongs.
    ///
    /// # Errors
    /// When there is no such part of an image, or no room left.
    pub fn write(&self, image: &str, offset: u64, content: &[u8]) -> io::Result<()> {
        let runs =
            self.layout.runs(image, offset, content.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let view = read(&self.view);
        let mut rest = content;
        for run in runs {
            let length = usize::try_from(run.length).map_err(|_| io::ErrorKind::InvalidInput)?;
            let (part, after) = rest.split_at(length);
            view.write(run.process, run.address, part)?;
            rest = after;
        }
        Ok(())
    }
}

impl Filled {
    /// Starts CRIU, with `launch` in the right place already.
    pub(super) fn start(
        container: &Container,
        launch: Launch<'_>,
        options: RestoreOptions,
    ) -> Result<Self, Error> {
        let spool = Spool::make(container)?;
        let view = RestoreView::new(Limits { bytes: MOST_BYTES, command: COMMAND })?;
        let mut launch = launch.with_restore_view(&view)?;
        let options = RestoreOptions { images: launch.pass_directory(spool.open()?), ..options };
        let log = crate::logs::new_log(&container.config, container.key(), "restore")?;
        let work = crate::logs::work_directory(&container.config)?;
        let session = launch.start(&work, &log)?;
        let view = Arc::new(RwLock::new(view));
        Ok(Self {
            session,
            options,
            log,
            view,
            spool,
            work,
            rounds: 0,
            areas: Vec::new(),
            mappings: None,
            debt: None,
        })
    }

    /// CRIU's process, as the host counts it.
    pub(super) fn pid(&self) -> u32 {
        self.session.pid()
    }

    /// Makes room for a round.
    pub(super) fn round(&mut self, plan: &[u8]) -> Result<Room, Error> {
        let plan = Plan::decode(plan).ok_or_else(|| damaged("says of memory what cannot be"))?;
        if plan.number != self.rounds + 1 || self.mappings.is_some() {
            return Err(damaged("comes out of turn"));
        }
        self.rounds = plan.number;
        let mut view = write(&self.view);
        if plan.mappings.is_none() {
            if plan.number == 2 {
                // Most of it is there now. Huge pages are copied by one entry of the page tables when CRIU forks.
                let whole = view.collapse(COLLAPSE)?;
                tracing::debug!(whole, "huge pages are made of what has arrived");
            }
            view.lay_out(&plan.areas.iter().map(spec).collect::<Vec<_>>())?;
            self.areas.clone_from(&plan.areas);
        }
        for pages in &plan.forgotten {
            view.discard(pages.process, &spans(pages))?;
        }
        self.debt = Debt::of(plan.number, &plan.owed);
        for missing in
            self.debt.iter().flat_map(Debt::missing).filter(|missing| missing.of == missing.process)
        {
            // What came of it in earlier rounds, or with a huge page, would be taken for its content.
            for area in self.areas.iter().filter(|area| area.process == missing.process) {
                let area = fastmig_memory::Span { start: area.start, end: area.end };
                let gone = common(&missing.spans, &[area]);
                view.discard(missing.process, &gone.iter().map(ours).collect::<Vec<_>>())?;
            }
        }
        drop(view);
        let layout = Layout::of(&plan);
        self.mappings = plan.mappings;
        Ok(Room { layout, view: Arc::clone(&self.view) })
    }

    /// Restores; `follow` is told of CRIU's stages. What is owed to the application then, by `fetch`.
    pub(super) fn restore(
        self,
        images: &dyn ImageSource,
        fetch: Arc<dyn Fetch>,
        follow: &mut dyn FnMut(Notification) -> Result<(), String>,
    ) -> Result<Option<Filling>, Error> {
        let Self { session, options, view, spool, work, mappings, debt, .. } = self;
        let mappings = mappings.ok_or_else(|| damaged("is not all there"))?;
        let path = spool.path();
        spool.take(images).map_err(|e| Error::io("write images into", path, e))?;
        let remainders = name_mappings(path, &mappings)?;
        let mut view = write(&view);
        view.align(&remainders)?;
        let missing = debt.as_ref().map(Debt::missing).unwrap_or_default();
        view.arrange(&mappings.iter().map(|mapping| placed(mapping, missing)).collect::<Vec<_>>())?;
        let mut follow = |stage| {
            if stage == Notification::PreResume {
                view.taken().map_err(|e| e.to_string())?;
            }
            follow(stage)
        };
        let Some(debt) = debt else {
            session.restore(&options, &mut follow)?;
            return Ok(None);
        };
        view::images::take_all_pages(path).map_err(|e| Error::io("prepare", path, e))?;
        let options = RestoreOptions { lazy: true, ..options };
        restore_owing(session, &options, &work, debt, fetch, &mut follow).map(Some)
    }
}

/// Restores processes that miss some of their memory: each fault from then on is answered.
fn restore_owing(
    session: Session,
    options: &RestoreOptions,
    work: &Path,
    debt: Debt,
    fetch: Arc<dyn Fetch>,
    follow: &mut dyn FnMut(Notification) -> Result<(), String>,
) -> Result<Filling, Error> {
    let failed = |e| Error::io("have memory follow through", work, e);
    let (origin, missing) = debt.origin(fetch);
    let filling = Filling::begin(origin, missing).map_err(failed)?;
    let socket = LazySocket::listen(work).map_err(failed)?;
    let listener = socket.listener().map_err(failed)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receive = || LazySocket::receive(&listener, &stop, |pid, uffd| filling.add(pid, uffd));
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
    Ok(filling)
}

/// Lets CRIU say of each mapping which one it is, when it maps it. Where CRIU's own place for the mappings of a process should
/// lie, so that the largest keeps its huge pages.
fn name_mappings(directory: &Path, mappings: &[Mapping]) -> Result<Vec<(i32, u64)>, Error> {
    let mut of_process: BTreeMap<i32, Vec<(u64, u64)>> = BTreeMap::new();
    for mapping in mappings {
        of_process.entry(mapping.process).or_default().push((mapping.start, mapping.end));
    }
    let mut remainders = Vec::new();
    for (process, keys) in of_process {
        let path = directory.join(format!("mm-{process}.img"));
        let image = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let named = view::images::key_mappings(&image, &keys);
        let named = named.ok_or_else(|| damaged("names mappings that are not there"))?;
        std::fs::write(&path, named).map_err(|e| Error::io("write", &path, e))?;
        let largest = keys.iter().max_by_key(|(start, end)| end - start);
        let remainder = largest.and_then(|(start, _)| view::images::place_remainder(&image, *start));
        remainders.extend(remainder.map(|remainder| (process, remainder)));
    }
    view::images::parent_directory(directory).map_err(|e| Error::io("prepare", directory, e))?;
    Ok(remainders)
}

fn damaged(problem: &'static str) -> Error {
    ImageError::Damaged { path: STREAM.into(), file: "memory".into(), problem }.into()
}

fn spec(area: &super::plan::Area) -> AreaSpec {
    let super::plan::Area { process, start, end, no_reserve, no_huge } = *area;
    AreaSpec { process, start, end, no_reserve, no_huge }
}

fn spans(pages: &Pages) -> Vec<Span> {
    pages.spans().map(|span| Span { start: span.start, end: span.end }).collect()
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
            let of_it = missing.iter().find(|m| (m.process, m.of) == (mapping.process, mapping.process));
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
