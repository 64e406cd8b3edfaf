//! Rounds of memory, read, hashed, compared with the checkpoint before, and written.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::base::Base;
use super::content::{hash, Content, Hash};
use super::ledger::{Found, Full, Ledger};
use super::{PAGE, PAGE_BYTES, STEP, STEP_BYTES};
use crate::image::ImageError;
use crate::migration::plan::{Area, Mapping, Plan, Run, SharedArea};
use crate::migration::{Round, RoundMemory};
use crate::Error;

/// So many threads read while the application runs, which needs the processors itself; and so many while it stands still.
const WORKERS: usize = 2;
const WORKERS_IN_FREEZE: usize = 4;

const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The memory of a checkpoint in the making.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) directory: PathBuf,
    pub(super) content: Content,
    pub(super) base: Option<Base>,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) areas: Vec<Area>,
    pub(super) shared: Vec<SharedArea>,
    pub(super) mappings: Option<Vec<Mapping>>,
}

/// A part of a round that is read at once.
struct Step {
    image: String,
    offset: u64,
    length: usize,
}

/// A page that was read, and what it was found to be.
struct Looked {
    process: i32,
    page: u64,
    found: Found,
    hash: Hash,
}

impl Capture {
    /// Of a checkpoint that is made in `directory`, upon the one at `base`, if there is such a one.
    pub(super) fn begin(directory: &Path, base: Option<&Path>) -> Result<Self, Error> {
        let base = base.and_then(|base| Base::link(base, directory));
        let content = Content::create(directory).map_err(|e| Error::io("make a file in", directory, e))?;
        Ok(Self {
            directory: directory.into(),
            content,
            base,
            ledger: Mutex::default(),
            areas: Vec::new(),
            shared: Vec::new(),
            mappings: None,
        })
    }

    /// Takes a round in. How many bytes it had.
    pub(super) fn take(&mut self, round: &Round) -> Result<u64, Error> {
        let nonsense = || ImageError::Damaged {
            path: self.directory.clone(),
            file: super::map::NAME.into(),
            problem: "cannot be made of such memory",
        };
        let plan = Plan::decode(&round.plan).ok_or_else(nonsense)?;
        self.follow(&plan);
        let steps = steps(&round.memory);
        let bytes = steps.iter().map(|step| step.length as u64).sum();
        let workers = if plan.mappings.is_some() { WORKERS_IN_FREEZE } else { WORKERS };
        let stored = self.store_all(&round.memory, &steps, workers);
        stored.map_err(|e| Error::io("take the memory into", &self.directory, e))?;
        self.areas = if plan.mappings.is_some() { std::mem::take(&mut self.areas) } else { plan.areas };
        self.shared = plan.shared;
        self.mappings = plan.mappings;
        Ok(bytes)
    }

    /// What lies outside the areas that there are now, or was given back, is no content any more.
    fn follow(&mut self, plan: &Plan) {
        let ledger = self.ledger.get_mut().unwrap_or_else(PoisonError::into_inner);
        for pages in &plan.forgotten {
            pages.spans().for_each(|span| ledger.forget(pages.process, in_pages(&span)));
        }
        if plan.mappings.is_none() {
            let areas = plan.areas.iter().map(|area| (area.process, area.start..area.end));
            ledger.keep(&kept(areas, &plan.shared));
        }
    }

    fn store_all(&self, memory: &RoundMemory, steps: &[Step], workers: usize) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut buffer = vec![0; STEP_BYTES];
            while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                let stored = self.store(memory, step, &mut buffer[..step.length]);
                // The others need not go on.
                stored.inspect_err(|_| next.store(steps.len(), Ordering::Relaxed))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..workers.min(steps.len())).map(|_| scope.spawn(work)).collect();
            others.into_iter().fold(work(), |result, other| {
                result.and(other.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
            })
        })
    }

    fn store(&self, memory: &RoundMemory, step: &Step, bytes: &mut [u8]) -> io::Result<()> {
        memory.read(&step.image, step.offset, bytes)?;
        let runs = memory.runs(&step.image, step.offset, step.length as u64);
        let mut looked = Vec::with_capacity(bytes.len() / PAGE_BYTES);
        let mut rest = &*bytes;
        for run in runs.ok_or(io::ErrorKind::InvalidInput)? {
            let length = usize::try_from(run.length).map_err(|_| io::ErrorKind::InvalidInput)?;
            let (part, after) = rest.split_at(length);
            self.look(&run, part, &mut looked);
            rest = after;
        }
        self.write(bytes, &looked)
    }

    fn look(&self, run: &Run, bytes: &[u8], looked: &mut Vec<Looked>) {
        let (process, first) = (run.process, run.address / PAGE);
        let mut known =
            self.base.iter().flat_map(|base| base.known(process, first, run.length / PAGE)).peekable();
        for (page, bytes) in (first..).zip(bytes.chunks(PAGE_BYTES)) {
            let before = known.next_if(|(known, ..)| *known == page);
            if *bytes == ZEROS {
                looked.push(Looked { process, page, found: Found::Zeros, hash: Hash::default() });
                continue;
            }
            let hash = hash(bytes);
            let found = match before {
                Some((_, slot, same)) if same == hash => Found::Known(slot),
                _ => Found::New,
            };
            looked.push(Looked { process, page, found, hash });
        }
    }

    /// Writes what is new of these pages, which lie in `bytes` one after the other.
    pub(super) fn write_new(&self, bytes: &[u8], process: i32, pages: &[u64]) -> io::Result<()> {
        let new = |(page, bytes)| Looked { process, page, found: Found::New, hash: hash(bytes) };
        let looked: Vec<Looked> = pages.iter().copied().zip(bytes.chunks(PAGE_BYTES)).map(new).collect();
        self.write(bytes, &looked)
    }

    fn write(&self, bytes: &[u8], looked: &[Looked]) -> io::Result<()> {
        let full =
            |Full| io::Error::new(io::ErrorKind::FileTooLarge, "one file has no room for so much memory");
        let slots: Vec<Option<u32>> = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let slots = looked.iter().map(|page| ledger.note(page.process, page.page, page.found));
            slots.collect::<Result<_, _>>().map_err(full)?
        };
        let mut at = 0;
        while at < slots.len() {
            let Some(first) = slots[at] else {
                at += 1;
                continue;
            };
            let together =
                slots[at..].iter().zip(first..).take_while(|(slot, next)| **slot == Some(*next)).count();
            let hashes: Vec<Hash> = looked[at..at + together].iter().map(|page| page.hash).collect();
            self.content.write(first, &bytes[at * PAGE_BYTES..(at + together) * PAGE_BYTES], &hashes)?;
            at += together;
        }
        Ok(())
    }
}

fn steps(memory: &RoundMemory) -> Vec<Step> {
    let images = memory.images().into_iter();
    let cut = |(image, size): (String, u64)| {
        let offsets = (0..size).step_by(STEP_BYTES);
        offsets.map(move |offset| Step {
            image: image.clone(),
            offset,
            length: usize::try_from((size - offset).min(STEP)).unwrap_or(0),
        })
    };
    images.flat_map(cut).collect()
}

/// What a ledger is to keep, by numbers of pages.
pub(super) fn kept(
    spans: impl Iterator<Item = (i32, Range<u64>)>,
    shared: &[SharedArea],
) -> BTreeMap<i32, Vec<Range<u64>>> {
    let mut kept: BTreeMap<i32, Vec<Range<u64>>> = BTreeMap::new();
    for (process, span) in spans {
        kept.entry(process).or_default().push(in_pages(&span));
    }
    for area in shared {
        kept.entry(area.holder).or_default().push(0..area.size.div_ceil(PAGE));
    }
    kept.values_mut().for_each(|ranges| ranges.sort_unstable_by_key(|range| range.start));
    kept
}

fn in_pages(span: &Range<u64>) -> Range<u64> {
    span.start / PAGE..span.end.div_ceil(PAGE)
}
