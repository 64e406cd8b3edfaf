//! Whether a checkpoint's files have what the application had in its memory when it stood still, page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fastmig_criu::view;

use super::content::{hash, Content};
use super::map::{among, Map};
use super::{PAGE, PAGE_BYTES, STEP};
use crate::image::ImageError;
use crate::migration::plan::Mapping;
use crate::migration::{processes, rseq_pages};
use crate::tree::application;
use crate::Error;

const WORKERS: usize = 4;
/// So many differences are named.
const NAMED: usize = 8;

/// What frozen processes have.
#[derive(Debug)]
pub(super) struct Memory {
    /// The first bytes of the hash of each page that is not zeros, by process and page.
    pages: BTreeMap<i32, BTreeMap<u64, u64>>,
    /// The same of shared memory, by its inode, with hashes of another kind.
    shared: BTreeMap<u64, BTreeMap<u64, u64>>,
    parents: BTreeMap<i32, i32>,
}

impl Memory {
    /// Of these frozen processes.
    pub(super) fn of(pids: &BTreeSet<i32>) -> Result<Self, Error> {
        let relations = application::relations(pids);
        let inner: BTreeMap<i32, i32> =
            relations.iter().map(|relation| (relation.host, relation.inner)).collect();
        let mut pages = BTreeMap::new();
        for relation in &relations {
            let hashes = fastmig_memory::page_hashes(relation.host, WORKERS).map_err(|e| {
                Error::Untracked { id: format!("process {}", relation.host), source: e.into() }
            })?;
            pages.insert(relation.inner, hashes.into_iter().map(|(at, hash)| (at / PAGE, hash)).collect());
        }
        let parent = |relation: &application::Relation| Some((relation.inner, *inner.get(&relation.parent)?));
        Ok(Self { pages, shared: shared(pids)?, parents: relations.iter().filter_map(parent).collect() })
    }

    /// Compares it with what the checkpoint in `directory` has, but for what the kernel itself writes while CRIU looks at a
    /// thread. How many pages were compared.
    pub(super) fn compare(&self, directory: &Path) -> Result<u64, Error> {
        let (map, contents) = Map::open(directory)?;
        let areas = view::rseq_areas(directory).map_err(|e| Error::io("look at threads in", directory, e))?;
        let rseq = rseq_pages(&areas);
        let written = Written { map: &map, contents: &contents, parents: &self.parents };
        let mut compared = 0;
        for mapping in map.plan.mappings.iter().flatten() {
            let span = mapping.start / PAGE..mapping.end / PAGE;
            let had: BTreeMap<u64, u64> = match self.pages.get(&mapping.process) {
                Some(pages) => pages.range(span.clone()).map(|(page, hash)| (*page, *hash)).collect(),
                None => BTreeMap::new(),
            };
            let has = written.content(mapping.process, &span)?;
            compared += had.len().max(has.len()) as u64;
            require_same(mapping.process, &had, &has, &rseq)?;
        }
        for area in &map.plan.shared {
            let had = self.shared.get(&area.id).cloned().unwrap_or_default();
            let has =
                written.own(area.holder, &(0..area.size.div_ceil(PAGE)), fastmig_memory::shared_page_hash)?;
            compared += had.len().max(has.len()) as u64;
            require_same(area.holder, &had, &has, &BTreeSet::new())?;
        }
        Ok(compared)
    }
}

fn require_same(
    process: i32,
    had: &BTreeMap<u64, u64>,
    has: &BTreeMap<u64, u64>,
    but_for: &BTreeSet<u64>,
) -> Result<(), Error> {
    let both: BTreeSet<u64> = had.keys().chain(has.keys()).copied().collect();
    let wrong = |page: &u64| had.get(page) != has.get(page) && !but_for.contains(page);
    let differ: Vec<u64> = both.into_iter().filter(wrong).collect();
    if differ.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = differ.iter().take(NAMED).map(|page| format!("{:#x}", page * PAGE)).collect();
    Err(Error::Differs { process, exact: differ.len(), others: 0, pages: named.join(", ") })
}

/// Shared memory is named by where a process has it.
fn shared(pids: &BTreeSet<i32>) -> Result<BTreeMap<u64, BTreeMap<u64, u64>>, Error> {
    let processes = processes(pids);
    let untracked =
        |e: fastmig_memory::Error| Error::Untracked { id: "shared memory".into(), source: e.into() };
    let mut shared = BTreeMap::new();
    for content in fastmig_memory::shared_hashes(&processes).map_err(untracked)? {
        let owner = processes.iter().find(|process| process.id == content.process);
        let path = format!("/proc/{}/{}", owner.map_or(0, |owner| owner.host), content.place);
        let status = std::fs::metadata(&path).map_err(|e| Error::io("look at", Path::new(&path), e))?;
        shared.insert(status.ino(), content.pages.into_iter().map(|(at, hash)| (at / PAGE, hash)).collect());
    }
    Ok(shared)
}

struct Written<'a> {
    map: &'a Map,
    contents: &'a [Content],
    parents: &'a BTreeMap<i32, i32>,
}

impl Written<'_> {
    /// The pages of a process among these, as a restore would bring them back.
    fn content(&self, process: i32, pages: &Range<u64>) -> Result<BTreeMap<u64, u64>, Error> {
        let mut content = self.own(process, pages, short_hash)?;
        let Some((own, absent)) = self.mapping(process, pages).and_then(|mapping| mapping.inherited.as_ref())
        else {
            return Ok(content);
        };
        let excluded: Vec<Range<u64>> =
            own.spans().chain(absent.spans()).map(|span| span.start / PAGE..span.end / PAGE).collect();
        let parent = self.parents.get(&process).map(|parent| self.content(*parent, pages)).transpose()?;
        for (page, hash) in parent.unwrap_or_default() {
            if !excluded.iter().any(|range| range.contains(&page)) {
                content.insert(page, hash);
            }
        }
        Ok(content)
    }

    fn mapping(&self, process: i32, pages: &Range<u64>) -> Option<&Mapping> {
        let all = self.map.plan.mappings.iter().flatten();
        all.into_iter().find(|mapping| mapping.process == process && mapping.start / PAGE == pages.start)
    }

    /// Read and hashed anew: what the files have, not what they are said to.
    fn own(
        &self,
        process: i32,
        pages: &Range<u64>,
        hash: impl Fn(&[u8]) -> u64,
    ) -> Result<BTreeMap<u64, u64>, Error> {
        let mut found = BTreeMap::new();
        for run in among(&self.map.places, process, pages.start, pages.end - pages.start) {
            let content = &self.contents[usize::from(run.file)];
            let mut done = 0;
            while done < run.count {
                let count = (run.count - done).min(STEP / PAGE);
                let index = run.index + u32::try_from(done).unwrap_or(u32::MAX);
                let mut bytes = vec![0; usize::try_from(count * PAGE).unwrap_or(0)];
                let read = content.read(index, &mut bytes);
                read.map_err(|_| damaged("has another content than was written"))?;
                found.extend((run.page + done..).zip(bytes.chunks(PAGE_BYTES).map(&hash)));
                done += count;
            }
        }
        Ok(found)
    }
}

/// What [`fastmig_memory::page_hashes`] tells of a page.
fn short_hash(page: &[u8]) -> u64 {
    hash(page).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn damaged(problem: &'static str) -> Error {
    ImageError::Damaged { path: "the new checkpoint".into(), file: super::map::NAME.into(), problem }.into()
}
