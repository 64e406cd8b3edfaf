//! What is left over goes, what little is left of old files moves, and the map is written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::PoisonError;

use super::base::{remove, Base};
use super::capture::{kept, Capture};
use super::content::{hashes_name, pages_name, Unread};
use super::ledger::NEW;
use super::map::Map;
use super::{PAGE, PAGE_BYTES, STEP_BYTES};
use crate::image::{FileEntry, ImageError};
use crate::migration::plan::{Mapping, Plan};
use crate::Error;

/// So many files of checkpoints before are kept at most: the least used move.
const MOST_LINKED: usize = 15;

/// What became of the content files.
#[derive(Debug)]
pub(super) struct Finished {
    /// What is known already of files that were linked.
    pub(super) known: BTreeMap<String, FileEntry>,
    /// Bytes of memory that the checkpoint before had.
    pub(super) reused: u64,
}

impl Capture {
    /// Ends the memory of a checkpoint. The application may run meanwhile.
    pub(super) fn finish(mut self) -> Result<Finished, Error> {
        let base = self.base.take();
        let mappings = self.mappings.take().unwrap_or_default();
        let content = mappings.iter().flat_map(content_of);
        let kept = kept(content, &self.shared);
        self.ledger.get_mut().unwrap_or_else(PoisonError::into_inner).keep(&kept);
        let linked = base.as_ref().map_or(0, |base| base.contents.len());
        let used = self.ledger.get_mut().unwrap_or_else(PoisonError::into_inner).used(linked + 1);
        let stay = base.as_ref().map_or(Vec::new(), |base| staying(base, &used[1..]));
        for (index, base) in base.iter().flat_map(|base| (0..linked).map(move |index| (index, base))) {
            if !stay.contains(&index) {
                self.take_over(base, index)?;
            }
        }
        self.conclude(base.as_ref(), &stay, mappings)
    }

    /// Writes what is in use of a file of the checkpoint before into our own.
    fn take_over(&mut self, base: &Base, index: usize) -> Result<(), Error> {
        let content = &base.contents[index];
        let file = u16::try_from(index + 1).unwrap_or(u16::MAX);
        let pages = self.ledger.get_mut().unwrap_or_else(PoisonError::into_inner).within(file);
        let together = |a: &(u32, i32, u64), b: &(u32, i32, u64)| a.0 + 1 == b.0 && a.1 == b.1;
        for run in pages.chunk_by(together).flat_map(|run| run.chunks(STEP_BYTES / PAGE_BYTES)) {
            let (first, process, _) = run[0];
            let mut bytes = vec![0; run.len() * PAGE_BYTES];
            content.read(first, &mut bytes).map_err(|e| unread(base, content.number, e))?;
            let numbers: Vec<u64> = run.iter().map(|(.., page)| *page).collect();
            let written = self.write_new(&bytes, process, &numbers);
            written.map_err(|e| Error::io("take the memory into", &self.directory, e))?;
        }
        for name in [pages_name(content.number), hashes_name(content.number)] {
            remove(&self.directory, &name);
        }
        tracing::debug!(pages = pages.len(), file = content.number, "what is left of a file has moved");
        Ok(())
    }

    fn conclude(
        mut self,
        base: Option<&Base>,
        stay: &[usize],
        mappings: Vec<Mapping>,
    ) -> Result<Finished, Error> {
        let ledger = self.ledger.get_mut().unwrap_or_else(PoisonError::into_inner);
        let used = ledger.used(base.map_or(0, |base| base.contents.len()) + 1);
        let mut files = Vec::new();
        if used[usize::from(NEW)] > 0 {
            files.push(self.content.number);
        } else {
            [pages_name(self.content.number), hashes_name(self.content.number)]
                .iter()
                .for_each(|name| remove(&self.directory, name));
        }
        let mut numbers = BTreeMap::from([(NEW, 0)]);
        let mut known = BTreeMap::new();
        for index in stay {
            let Some(content) = base.and_then(|base| base.contents.get(*index)) else { continue };
            numbers.insert(
                u16::try_from(index + 1).unwrap_or(u16::MAX),
                u16::try_from(files.len()).unwrap_or(u16::MAX),
            );
            files.push(content.number);
            for name in [pages_name(content.number), hashes_name(content.number)] {
                known
                    .extend(base.and_then(|base| base.entries.get(&name)).map(|entry| (name, entry.clone())));
            }
        }
        let places = ledger.places(|file| numbers.get(&file).copied().unwrap_or(u16::MAX));
        let plan = Plan {
            number: 1,
            areas: self.areas,
            pages: Vec::new(),
            forgotten: Vec::new(),
            owed: Vec::new(),
            mappings: Some(mappings),
            shared: self.shared,
        };
        let map = Map { files, plan, places };
        map.write(&self.directory)
            .map_err(|e| Error::io("write the memory's map into", &self.directory, e))?;
        let reused = used[1..].iter().sum::<u64>() * PAGE;
        Ok(Finished { known, reused })
    }
}

/// The files of the checkpoint before that stay files of this one, where so many pages of each are in use: those of which at
/// least half is, and of these not too many.
fn staying(base: &Base, used: &[u64]) -> Vec<usize> {
    let half = |index: &usize| {
        let count = base.contents[*index].count().unwrap_or(u64::MAX);
        used[*index] > 0 && used[*index] >= count.div_ceil(2)
    };
    let mut stay: Vec<usize> = (0..used.len()).filter(half).collect();
    stay.sort_by_key(|index| std::cmp::Reverse(used[*index]));
    stay.truncate(MOST_LINKED);
    stay
}

/// The memory of a mapping that is its process's own.
fn content_of(mapping: &Mapping) -> Vec<(i32, Range<u64>)> {
    match &mapping.inherited {
        None => vec![(mapping.process, mapping.start..mapping.end)],
        Some((own, _)) => own.spans().map(|span| (mapping.process, span)).collect(),
    }
}

fn unread(base: &Base, number: u64, why: Unread) -> Error {
    let file = pages_name(number);
    match why {
        Unread::Failed(source) => Error::io("read", &base.path.join(file), source),
        Unread::Damaged => {
            let problem = "has another content than was written";
            ImageError::Damaged { path: base.path.clone(), file, problem }.into()
        }
    }
}
