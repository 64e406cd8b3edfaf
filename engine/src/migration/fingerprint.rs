//! The content of an application's memory, page by page, at the source and at the destination.
//!
//! Between the two the kernel itself writes a few bytes in each thread's `rseq` area, which mostly lies by its stack; and nobody else
//! writes. Mappings that travelled in rounds must be the same to the last byte, but for the pages in which CRIU has found such an
//! area: the first thread's, in static programs, is at the beginning of the heap.

use std::collections::{BTreeMap, BTreeSet};

use fastmig_memory::spans::without;
use fastmig_memory::{SharedContent, Span};
use serde::{Deserialize, Serialize};

use super::plan::{Mapping, PAGE};
use super::tracked::processes;
use crate::image::ImageError;
use crate::tree::application::{self, Relation};
use crate::Error;

const WORKERS: usize = 2;
/// A thread's area may lie across two pages.
const PAGES_PER_THREAD: usize = 2;
/// So many differences are named.
const NAMED: usize = 8;

/// Of a whole tree.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    processes: Vec<OfProcess>,
    shared: Vec<OfShared>,
    /// Numbers of pages, of whichever process, in which a thread's `rseq` area lies.
    rseq: BTreeSet<u64>,
}

/// Shared memory, by where the first process has it: its offsets and their hashes; pages of zeros are left out.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfShared {
    process: i32,
    place: String,
    pages: Vec<(u64, u64)>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfProcess {
    inner: i32,
    threads: usize,
    /// Page number and hash; pages of zeros are left out.
    pages: Vec<(u64, u64)>,
    /// Anonymous memory, from where to where, with or without pages in it.
    anonymous: Vec<(u64, u64)>,
    /// Mappings that travelled in rounds, in page numbers, and parts of them that are not as the rest.
    exact: Vec<(u64, u64, Source)>,
}

/// Where the destination has a page from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Source {
    /// The process's own area, as a whole.
    Own,
    /// The parent.
    Parent,
    /// The process's own area, over the parent's.
    Copied,
    /// Nowhere: the parent has it, the process has not.
    Absent,
}

impl Fingerprint {
    /// Of these frozen processes.
    pub(super) fn of(pids: &BTreeSet<i32>, mappings: &[Mapping], rseq: &[(u64, u64)]) -> Result<Self, Error> {
        let of = |relation: &Relation| {
            let ours = mappings.iter().filter(|mapping| mapping.process == relation.inner);
            Ok(OfProcess {
                inner: relation.inner,
                threads: application::threads_of(relation.host),
                pages: pages(relation.host)?,
                anonymous: anonymous(relation.host)?,
                exact: ours.flat_map(parts).collect(),
            })
        };
        let processes = application::relations(pids).iter().map(of).collect::<Result<_, Error>>()?;
        Ok(Self { processes, shared: shared(pids)?, rseq: rseq_pages(rseq) })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Compares it with these frozen processes. How many pages were compared.
    pub(super) fn compare(&self, pids: &BTreeSet<i32>) -> Result<u64, Error> {
        let here: BTreeMap<i32, i32> =
            application::relations(pids).iter().map(|relation| (relation.inner, relation.host)).collect();
        let mut compared = 0;
        for process in &self.processes {
            let host = here.get(&process.inner).ok_or_else(|| damaged("lacks a process"))?;
            let pages = pages(*host)?;
            process.compare(&pages, &self.rseq)?;
            process.require_all_mapped(&mapped(*host)?)?;
            compared += process.pages.len().max(pages.len()) as u64;
        }
        if here.len() != self.processes.len() {
            return Err(damaged("has another number of processes"));
        }
        let shared = shared(pids)?;
        if shared.len() != self.shared.len() {
            return Err(damaged("has another number of pieces of shared memory"));
        }
        for (there, here) in self.shared.iter().zip(&shared) {
            there.compare(here)?;
            compared += there.pages.len().max(here.pages.len()) as u64;
        }
        Ok(compared)
    }
}

/// The pages in which threads' `rseq` areas lie: the kernel writes there by itself.
pub(crate) fn rseq_pages(areas: &[(u64, u64)]) -> BTreeSet<u64> {
    // Of the length there is nothing to fear: CRIU has it from the kernel.
    areas.iter().flat_map(|(start, end)| [start / PAGE, end.saturating_sub(1) / PAGE]).collect()
}

impl OfShared {
    fn compare(&self, here: &Self) -> Result<(), Error> {
        if self == here {
            return Ok(());
        }
        let (there, now): (BTreeSet<_>, BTreeSet<_>) =
            (self.pages.iter().collect(), here.pages.iter().collect());
        let differ: BTreeSet<u64> = there.symmetric_difference(&now).map(|(offset, _)| *offset).collect();
        let named: Vec<String> = differ.iter().take(NAMED).map(|offset| format!("{offset:#x}")).collect();
        Err(Error::Differs {
            process: self.process,
            exact: differ.len(),
            others: 0,
            pages: format!("shared, {} and {}: {}", self.place, here.place, named.join(", ")),
        })
    }
}

impl OfProcess {
    fn compare(&self, here: &[(u64, u64)], rseq: &BTreeSet<u64>) -> Result<(), Error> {
        let there: BTreeMap<u64, u64> = self.pages.iter().copied().collect();
        let here: BTreeMap<u64, u64> = here.iter().copied().collect();
        let all: BTreeSet<u64> = there.keys().chain(here.keys()).copied().collect();
        let differ = all.into_iter().filter(|page| there.get(page) != here.get(page));
        let (exact, others): (Vec<u64>, Vec<u64>) =
            differ.partition(|page| self.is_exact(*page) && !rseq.contains(page));
        if exact.is_empty() && others.len() <= self.threads * PAGES_PER_THREAD {
            return Ok(());
        }
        let what = |page: &u64| match (there.contains_key(page), here.contains_key(page)) {
            (true, false) => "missing",
            (false, true) => "not to be there",
            _ => "different",
        };
        let name = |page: &u64| format!("{:#x} {:?} {}", page * PAGE, self.source(*page), what(page));
        let named: Vec<String> = exact.iter().chain(&others).take(NAMED).map(name).collect();
        Err(Error::Differs {
            process: self.inner,
            exact: exact.len(),
            others: others.len(),
            pages: named.join(", "),
        })
    }

    /// What is not touched yet may be, and must not fault then.
    fn require_all_mapped(&self, here: &[Span]) -> Result<(), Error> {
        let there: Vec<Span> = self.anonymous.iter().map(|&(start, end)| Span { start, end }).collect();
        let lost = without(&there, here);
        if lost.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = lost
            .iter()
            .take(NAMED)
            .map(|span| format!("{:#x}-{:#x} unmapped", span.start, span.end))
            .collect();
        let pages = lost.iter().map(|span| (span.end - span.start) / PAGE).sum::<u64>();
        Err(Error::Differs {
            process: self.inner,
            exact: 0,
            others: usize::try_from(pages).unwrap_or(usize::MAX),
            pages: named.join(", "),
        })
    }

    fn is_exact(&self, page: u64) -> bool {
        self.source(page).is_some()
    }

    /// The last that says something of it: a mapping comes before its parts.
    fn source(&self, page: u64) -> Option<Source> {
        let known = self.exact.iter().rev().find(|(start, end, _)| (*start..*end).contains(&page));
        known.map(|(_, _, source)| *source)
    }
}

fn parts(mapping: &Mapping) -> Vec<(u64, u64, Source)> {
    let whole = |source| vec![(mapping.start / PAGE, mapping.end / PAGE, source)];
    let Some((own, absent)) = &mapping.inherited else { return whole(Source::Own) };
    let mut parts = whole(Source::Parent);
    for (pages, source) in [(own, Source::Copied), (absent, Source::Absent)] {
        parts.extend(pages.spans().map(|span| (span.start / PAGE, span.end / PAGE, source)));
    }
    parts
}

fn pages(host: i32) -> Result<Vec<(u64, u64)>, Error> {
    let hashes = fastmig_memory::page_hashes(host, WORKERS);
    let hashes = hashes.map_err(|e| unreadable(host, e))?;
    Ok(hashes.into_iter().map(|(address, hash)| (address / PAGE, hash)).collect())
}

fn anonymous(host: i32) -> Result<Vec<(u64, u64)>, Error> {
    let spans = fastmig_memory::anonymous_spans(host).map_err(|e| unreadable(host, e))?;
    Ok(spans.iter().map(|span| (span.start, span.end)).collect())
}

fn mapped(host: i32) -> Result<Vec<Span>, Error> {
    fastmig_memory::mapped_spans(host).map_err(|e| unreadable(host, e))
}

fn unreadable(host: i32, source: fastmig_memory::Error) -> Error {
    Error::Untracked { id: format!("process {host}"), source: source.into() }
}

fn shared(pids: &BTreeSet<i32>) -> Result<Vec<OfShared>, Error> {
    let all = fastmig_memory::shared_hashes(&processes(pids));
    let all = all.map_err(|e| Error::Untracked { id: "shared memory".into(), source: e.into() })?;
    let of = |content: SharedContent| {
        let SharedContent { process, place, pages } = content;
        OfShared { process, place, pages }
    };
    Ok(all.into_iter().map(of).collect())
}

fn damaged(problem: &'static str) -> Error {
    ImageError::Damaged { path: "restored".into(), file: "memory".into(), problem }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: BTreeSet<u64> = BTreeSet::new();

    fn process(pages: &[(u64, u64)]) -> OfProcess {
        OfProcess {
            inner: 1001,
            threads: 1,
            pages: pages.to_vec(),
            anonymous: vec![(0x1000, 0x9000)],
            exact: vec![(100, 200, Source::Own)],
        }
    }

    #[test]
    fn shared_memory_must_be_the_same() {
        let shared = |pages: &[(u64, u64)]| OfShared {
            process: 1001,
            place: "map_files/1-2".into(),
            pages: pages.to_vec(),
        };
        let source = shared(&[(0, 1), (4096, 2)]);
        assert!(source.compare(&shared(&[(0, 1), (4096, 2)])).is_ok());
        let error = source.compare(&shared(&[(0, 1), (4096, 3)])).unwrap_err().to_string();
        assert!(error.contains("0x1000") && !error.contains("0x0,"), "{error}");
        assert!(source.compare(&shared(&[(0, 1)])).is_err());
    }

    #[test]
    fn what_travelled_in_rounds_must_be_the_same() {
        let source = process(&[(5, 1), (100, 2), (150, 3)]);
        assert!(source.compare(&[(5, 1), (100, 2), (150, 3)], &NONE).is_ok());
        for wrong in
            [&[(5, 1), (100, 2), (150, 4)][..], &[(5, 1), (100, 2)], &[(5, 1), (100, 2), (150, 3), (199, 1)]]
        {
            assert!(source.compare(wrong, &NONE).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_nobody_has_touched_yet_must_be_mapped() {
        let (source, span) = (process(&[]), |start, end| Span { start, end });
        assert!(source.require_all_mapped(&[span(0x1000, 0x5000), span(0x5000, 0xa000)]).is_ok());
        let error = source.require_all_mapped(&[span(0, 0x8000)]).unwrap_err().to_string();
        assert!(error.contains("0x8000-0x9000 unmapped"), "{error}");
    }

    #[test]
    fn the_kernel_may_have_written_by_a_threads_stack_and_nobody_else() {
        let source = process(&[(5, 1), (6, 1), (7, 1), (100, 2)]);
        assert!(source.compare(&[(5, 9), (6, 9), (7, 1), (100, 2)], &NONE).is_ok());
        let error = source.compare(&[(5, 9), (6, 9), (7, 9), (100, 2)], &NONE).unwrap_err().to_string();
        assert!(error.contains("0x5000") && error.contains("1001"), "{error}");
    }

    #[test]
    fn the_kernel_may_have_written_where_it_keeps_a_threads_area() {
        let source = process(&[(100, 1), (101, 1)]);
        let rseq = BTreeSet::from([100]);
        assert!(source.compare(&[(100, 2), (101, 1)], &rseq).is_ok());
        assert!(source.compare(&[(100, 1), (101, 2)], &rseq).is_err());
        assert!(source.compare(&[(100, 2), (101, 1)], &NONE).is_err());
    }
}
