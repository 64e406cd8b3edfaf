//! Memory that is owed: it follows an application that has moved already.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use fastmig_memory::fill::{Missing, Origin};
use fastmig_memory::spans::{common, without};
use fastmig_memory::{Content, Mapping, Process, Reader, Span};

use super::plan::{Owed, Pages};

/// Whose content is not sent in the freeze: each process's own, and what its children have in common with it.
pub(super) fn owe(
    pages: &BTreeMap<i32, Vec<Span>>,
    mappings: &[Mapping],
    processes: &[Process],
) -> Vec<Owed> {
    let mut missing: BTreeMap<i32, Vec<(i32, Vec<Span>)>> = BTreeMap::new();
    for process in parents_first(processes) {
        let ours: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.process == process.id).collect();
        let whole: Vec<Span> = ours.iter().map(|mapping| span(mapping)).collect();
        let own = pages.get(&process.id).map(|own| common(own, &whole)).unwrap_or_default();
        let mut all = vec![(process.id, own)];
        let parents = process.parent.and_then(|parent| missing.get(&parent)).cloned().unwrap_or_default();
        for mapping in ours {
            let Content::Inherited { own, absent } = &mapping.content else { continue };
            let shared = without(&without(&[span(mapping)], own), absent);
            all.extend(parents.iter().map(|(of, spans)| (*of, common(spans, &shared))));
        }
        all.retain(|(_, spans)| !spans.is_empty());
        missing.insert(process.id, all);
    }
    let owed = missing.into_iter().flat_map(|(process, all)| {
        all.into_iter().map(move |(of, spans)| {
            let spans = spans.iter().map(|span| span.start..span.end);
            Owed { of, pages: Pages::new(process, spans) }
        })
    });
    owed.collect()
}

fn span(mapping: &Mapping) -> Span {
    Span { start: mapping.start, end: mapping.end }
}

fn parents_first(processes: &[Process]) -> Vec<Process> {
    let parents: HashMap<i32, Option<i32>> = processes.iter().map(|p| (p.id, p.parent)).collect();
    let depth = |process: &Process| {
        let up = |id: &i32| parents.get(id).copied().flatten();
        std::iter::successors(process.parent, up).take(processes.len()).count()
    };
    let mut order = processes.to_vec();
    order.sort_by_cached_key(depth);
    order
}

/// Where what is owed lies in the one image of it.
#[derive(Debug)]
pub(super) struct OwedLayout {
    name: String,
    /// Process, first address, the one after the last, and where it begins in the image: in this order.
    runs: Vec<(i32, u64, u64, u64)>,
    size: u64,
}

impl OwedLayout {
    pub(super) fn of(number: u32, owed: &[Owed]) -> Self {
        let own = owed.iter().filter(|owed| owed.of == owed.pages.process).map(|owed| &owed.pages);
        let mut spans: Vec<_> =
            own.flat_map(|pages| pages.spans().map(|span| (pages.process, span.start, span.end))).collect();
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

/// Fetches what is owed, by the name of its image.
pub trait Fetch: Send + Sync + std::fmt::Debug {
    /// Fills `into` from `offset` of an image on. Blocks while there is hope.
    ///
    /// # Errors
    /// When it does not come any more.
    fn fetch(&self, image: &str, offset: u64, into: &mut [u8], urgent: bool) -> io::Result<()>;
}

/// What is owed at the destination.
#[derive(Debug)]
pub(super) struct Debt {
    layout: OwedLayout,
    missing: Vec<Missing>,
}

impl Debt {
    /// Nothing when nothing is owed.
    pub(super) fn of(number: u32, owed: &[Owed]) -> Option<Self> {
        let layout = OwedLayout::of(number, owed);
        let missing = owed.iter().map(|owed| Missing {
            process: owed.pages.process,
            of: owed.of,
            spans: spans(&owed.pages),
        });
        (layout.size > 0).then(|| Self { missing: missing.collect(), layout })
    }

    pub(super) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    pub(super) fn origin(self, fetch: Arc<dyn Fetch>) -> (Arc<dyn Origin>, Vec<Missing>) {
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
    use super::*;

    const fn page(start: u64, end: u64) -> Span {
        Span { start: start * 4096, end: end * 4096 }
    }

    fn mapping(process: i32, span: Span, content: Content) -> Mapping {
        Mapping { process, start: span.start, end: span.end, content }
    }

    #[test]
    fn children_miss_what_their_parents_do_but_for_their_own() {
        let process = |id, parent| Process { host: id, id, parent };
        let processes = [process(3, Some(2)), process(2, Some(1)), process(1, None)];
        let whole = page(16, 32);
        let inherited =
            |own: &[Span], absent: &[Span]| Content::Inherited { own: own.to_vec(), absent: absent.to_vec() };
        let mappings = [
            mapping(1, whole, Content::Own),
            mapping(2, whole, inherited(&[page(18, 20)], &[page(20, 21)])),
            mapping(3, whole, inherited(&[], &[])),
        ];
        let pages = BTreeMap::from([(1, vec![page(17, 24), page(100, 101)]), (2, vec![page(18, 19)])]);
        let owed = owe(&pages, &mappings, &processes);
        let found: Vec<_> =
            owed.iter().map(|owed| (owed.pages.process, owed.of, spans(&owed.pages))).collect();
        let of_two = vec![page(17, 18), page(21, 24)];
        assert_eq!(
            found,
            [
                (1, 1, vec![page(17, 24)]),
                (2, 2, vec![page(18, 19)]),
                (2, 1, of_two.clone()),
                (3, 2, vec![page(18, 19)]),
                (3, 1, of_two),
            ]
        );
        let layout = OwedLayout::of(4, &owed);
        assert_eq!(layout.size, 8 * 4096);
        assert_eq!(layout.offset(2, 18 * 4096, 4096), Some(7 * 4096));
        assert_eq!(layout.offset(1, 18 * 4096, 2 * 4096), Some(4096));
        assert_eq!(layout.offset(1, 23 * 4096, 2 * 4096), None);
        assert_eq!(layout.offset(3, 17 * 4096, 4096), None);
        let parts = layout.parts(6 * 4096, 2 * 4096).unwrap();
        assert_eq!(parts, [(1, 23 * 4096, 4096), (2, 18 * 4096, 4096)]);
        assert_eq!(layout.parts(7 * 4096, 4097), None);
    }
}
