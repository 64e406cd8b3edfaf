//! Memory that is owed: it follows an application that has moved already.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastmig_memory::fill::{Missing, Origin};
use fastmig_memory::{Reader, Span};

use super::mark::Role;
use super::plan::{Pages, Plan};
use crate::container::Container;
use crate::tree::application;
use crate::Error;

/// What is owed, in the container's directory: for a successor of ours.
const LEDGER: &str = "owed";

/// Where what is owed lies in the one image of it.
#[derive(Debug)]
pub(super) struct OwedLayout {
    name: String,
    /// Process, first address, the one after the last, and where it begins in the image: in this order.
    runs: Vec<(i32, u64, u64, u64)>,
    size: u64,
}

impl OwedLayout {
    pub(super) fn of(number: u32, owed: &[Pages]) -> Self {
        let spans =
            owed.iter().flat_map(|pages| pages.spans().map(|span| (pages.process, span.start, span.end)));
        let mut spans: Vec<_> = spans.collect();
        spans.sort_unstable();
        let mut size = 0;
        let place = |(process, start, end)| {
            let at = size;
            size += end - start;
            (process, start, end, at)
        };
        let runs = spans.into_iter().map(place).collect();
        Self { name: format!("owed-{number}"), runs, size }
    }

    /// Where an address of a process lies, if so many bytes from there on are owed together.
    fn offset(&self, process: i32, address: u64, length: u64) -> Option<u64> {
        let after = self.runs.partition_point(|(of, start, ..)| (*of, *start) <= (process, address));
        let (of, start, end, at) = *self.runs.get(after.checked_sub(1)?)?;
        let inside = of == process && address.checked_add(length).is_some_and(|last| last <= end);
        inside.then(|| at + (address - start))
    }

    /// Who has what lies from `offset` on: process, address and length.
    fn parts(&self, offset: u64, length: u64) -> Option<Vec<(i32, u64, u64)>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size)?;
        let first = self.runs.partition_point(|(_, start, last, at)| at + (last - start) <= offset);
        let within = self.runs.iter().skip(first).take_while(|(.., at)| *at < end);
        let cut = |(process, start, last, at): &(i32, u64, u64, u64)| {
            let (from, to) = ((*at).max(offset), (at + (last - start)).min(end));
            (*process, start + (from - at), to - from)
        };
        Some(within.map(cut).collect())
    }
}

/// The content of what is owed, in the frozen processes.
#[derive(Debug)]
pub struct OwedMemory {
    layout: OwedLayout,
    readers: HashMap<i32, Arc<Reader>>,
}

impl OwedMemory {
    pub(super) fn new(layout: OwedLayout, readers: HashMap<i32, Arc<Reader>>) -> Option<Arc<Self>> {
        (layout.size > 0).then(|| Arc::new(Self { layout, readers }))
    }

    /// Name and size of its image.
    #[must_use]
    pub fn images(&self) -> Vec<(String, u64)> {
        vec![(self.layout.name.clone(), self.layout.size)]
    }

    /// Fills `into` with what the image has from `offset` on.
    ///
    /// # Errors
    /// When there is no such part of an image, or a process or page is gone.
    pub fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let parts = self.layout.parts(offset, into.len() as u64).filter(|_| image == self.layout.name);
        let mut rest = into;
        for (process, address, length) in parts.ok_or(io::ErrorKind::InvalidInput)? {
            let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
            let (part, after) = rest.split_at_mut(length);
            let reader = self.readers.get(&process).ok_or(io::ErrorKind::NotFound)?;
            let before = reader.lost();
            reader.read(address, part)?;
            // It is frozen: a page that was there is there, unless somebody has killed it.
            if reader.lost() != before {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the application's memory is gone"));
            }
            rest = after;
        }
        Ok(())
    }
}

/// Writes the last plan down, before it may have to be kept by somebody else than us.
pub(super) fn write_down(container: &Container, plan: &[u8]) -> Result<(), Error> {
    let path = ledger(container);
    crate::files::replace(&path, plan).map_err(|e| Error::io("write", &path, e))
}

/// Nothing is owed any more.
pub(super) fn forget(container: &Container) {
    let path = ledger(container);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = %e, "what was owed stays written down");
        }
        _ => {}
    }
}

fn ledger(container: &Container) -> PathBuf {
    container.directory.file(LEDGER)
}

impl Container {
    /// What the frozen application that has left by migration `id` owes, when the process that began to serve it is gone.
    ///
    /// # Errors
    /// When this container is not of that migration, or its application is not there any more.
    pub fn owed(&self, id: &str) -> Result<Arc<OwedMemory>, Error> {
        let out_of_turn = || Error::OutOfTurn { id: self.key().id().into(), action: "serve the memory of" };
        let mark = self.directory.load(self.key())?.migration;
        if !mark.is_some_and(|mark| mark.id == id && mark.role == Role::Leaving && mark.fenced) {
            return Err(out_of_turn());
        }
        let path = ledger(self);
        let plan = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let plan = Plan::decode(&plan).ok_or_else(out_of_turn)?;
        let cgroup = self.application_cgroup()?;
        let failed = |e| Error::io("read the memory in", cgroup.directory(), e);
        if !cgroup.holds().map_err(failed)? {
            return Err(out_of_turn());
        }
        let mut readers = HashMap::new();
        for relation in application::relations(&cgroup.pids()) {
            let reader = Reader::open(relation.host).map_err(failed)?;
            readers.insert(relation.inner, Arc::new(reader));
        }
        let layout = OwedLayout::of(plan.number, &plan.owed);
        OwedMemory::new(layout, readers).ok_or_else(out_of_turn)
    }
}

/// Fetches what is owed, by the name of its image.
pub trait Fetch: Send + Sync + std::fmt::Debug {
    /// Fills `into` from `offset` of an image on. Blocks while there is hope.
    ///
    /// # Errors
    /// When it does not come any more.
    fn fetch(&self, image: &str, offset: u64, into: &mut [u8], urgent: bool) -> io::Result<()>;

    /// The application may run from here on: it waits for a source that is out of reach as long as was asked for.
    ///
    /// # Errors
    /// When nothing comes any more already: why.
    fn be_patient(&self) -> Result<(), String>;

    /// Nothing comes any more.
    fn close(&self, reason: &str);

    /// Tells the source that all is here, if it can be reached within `limit`.
    fn say_all_is_here(&self, bytes: u64, faults: u64, milliseconds: u64, limit: Duration);
}

/// What is owed at the destination.
#[derive(Debug)]
pub(super) struct Debt {
    pub(super) number: u32,
    pub(super) owed: Vec<Pages>,
    layout: OwedLayout,
    missing: Vec<Missing>,
}

impl Debt {
    /// Nothing when nothing is owed.
    pub(super) fn of(number: u32, owed: &[Pages]) -> Option<Self> {
        let layout = OwedLayout::of(number, owed);
        let missing = owed.iter().map(|pages| Missing {
            process: pages.process,
            of: pages.process,
            spans: spans(pages),
        });
        let missing = missing.collect();
        (layout.size > 0).then(|| Self { number, owed: owed.to_vec(), missing, layout })
    }

    pub(super) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    pub(super) fn fetched_by(self, fetch: Arc<dyn Fetch>) -> (Arc<dyn Origin>, Vec<Missing>) {
        (Arc::new(Fetched { layout: self.layout, fetch }), self.missing)
    }
}

fn spans(pages: &Pages) -> Vec<Span> {
    pages.spans().map(|span| Span { start: span.start, end: span.end }).collect()
}

#[derive(Debug)]
struct Fetched {
    layout: OwedLayout,
    fetch: Arc<dyn Fetch>,
}

impl Origin for Fetched {
    fn fetch(&self, process: i32, address: u64, into: &mut [u8], urgent: bool) -> io::Result<()> {
        let offset = self.layout.offset(process, address, into.len() as u64);
        let offset = offset.ok_or_else(|| io::Error::other("memory is missed that nobody owes"))?;
        self.fetch.fetch(&self.layout.name, offset, into, urgent)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const fn page(start: u64, end: u64) -> Range<u64> {
        start * 4096..end * 4096
    }

    #[test]
    fn what_is_owed_lies_in_one_image() {
        let owed = [Pages::new(2, [page(18, 19)]), Pages::new(1, [page(17, 24), page(100, 101)])];
        let layout = OwedLayout::of(4, &owed);
        assert_eq!(layout.size, 9 * 4096);
        assert_eq!(layout.offset(2, 18 * 4096, 4096), Some(8 * 4096));
        assert_eq!(layout.offset(1, 18 * 4096, 2 * 4096), Some(4096));
        assert_eq!(layout.offset(1, 23 * 4096, 2 * 4096), None);
        assert_eq!(layout.offset(3, 17 * 4096, 4096), None);
        let parts = layout.parts(7 * 4096, 2 * 4096).unwrap();
        assert_eq!(parts, [(1, 100 * 4096, 4096), (2, 18 * 4096, 4096)]);
        assert_eq!(layout.parts(8 * 4096, 4097), None);
    }
}
