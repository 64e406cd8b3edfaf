//! Writes to shared memory as page tables tell of them, so that in the freeze only what was written is read.
//!
//! A page table tells of what is written through it, and of nothing else. So only such memory is watched as nobody can write in
//! another way: it has no file, and so no descriptors; each mapping of it is of a process that is tracked; and no device writes to
//! one of these. In the freeze all mappings must be as they were, and nobody may have been born meanwhile, who may have written and
//! ended. Where one of that is not so, all of it is compared.
//!
//! A page that was taken away, and is there again because somebody has read it, was written by nobody. But it has gone from a
//! mapping of our own too, where nobody reads: see [`Held`].
//!
//! Not seen is who has a second mapping of it made by `mremap` of length 0, writes by it, and gives it up before the freeze.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use super::find::Mapper;
use crate::scan::Scanner;
use crate::spans::Spans;
use crate::sys::OwnMapping;
use crate::{parallel, Span, Tracker};

/// Holes are watched too, by entries in page tables that may not have been there: at most this part of what is populated.
const MOST_TABLES: u64 = 20;
/// A page of a page table tells of so much.
const PER_TABLE_BYTE: u64 = 512;

/// Who was born in the application's container: the last number that was given to anybody. Nothing where nobody knows.
pub type Births = Option<u32>;

/// Shared memory whose every mapping was write-protected at one time.
#[derive(Debug)]
pub(super) struct Watched {
    mappers: Vec<Mapper>,
    births: u32,
    held: Held,
}

impl Watched {
    /// Watches from here on what has `populated` pages. Nothing where that would not tell of every write.
    pub(super) fn begin(
        tracker: &mut Tracker,
        mappers: &[Mapper],
        births: Births,
        file: &File,
        populated: Spans,
    ) -> Option<Self> {
        let births = births?;
        let tables: u64 =
            mappers.iter().map(|mapper| (mapper.span.end - mapper.span.start) / PER_TABLE_BYTE).sum();
        if mappers.is_empty() || tables > populated.length() / MOST_TABLES {
            return None;
        }
        let mut all = mappers.iter();
        if !all.all(|mapper| tracker.watch_shared(mapper.process, mapper.host, mapper.span)) {
            return None;
        }
        let held = Held::new(file, populated);
        let held = held.inspect_err(|error| tracing::debug!(%error, "shared memory is not watched")).ok()?;
        Some(Self { mappers: mappers.to_vec(), births, held })
    }

    /// What may have been written since, by offset. Nothing where somebody may have written unseen.
    pub(super) fn written(&self, tracker: &Tracker, now: &[Mapper], births: Births) -> Option<Spans> {
        if births != Some(self.births) || now != self.mappers {
            return None;
        }
        let found = parallel::map_few(&self.mappers, |mapper| {
            let written = tracker.shared_written(mapper.process, mapper.host, mapper.span)?;
            let offset = |at: u64| at - mapper.span.start + mapper.offset;
            Some(
                written
                    .iter()
                    .map(|span| Span { start: offset(span.start), end: offset(span.end) })
                    .collect(),
            )
        });
        let all: Option<Vec<Vec<Span>>> = found.into_iter().collect();
        Some(Spans::from_unsorted(all?.concat()).union(&self.held.lost().ok()?))
    }
}

/// Pages that we have mapped, and never touch: one that is taken away goes from our page table too, and comes back there by nobody.
#[derive(Debug)]
struct Held {
    mapping: OwnMapping,
    /// What was there, by offset.
    pages: Spans,
}

impl Held {
    fn new(file: &File, pages: Spans) -> io::Result<Self> {
        let end = pages.iter().last().map_or(0, |span| span.end);
        let mapping = OwnMapping::new(file, end)?;
        pages.iter().try_for_each(|span| mapping.populate(span.start, span.end - span.start))?;
        Ok(Self { mapping, pages })
    }

    /// What has been taken away since, or moved by the kernel, be it there again or not.
    fn lost(&self) -> io::Result<Spans> {
        let start = self.mapping.start();
        let scanner = Scanner::own()?;
        let there = |span: Span| scanner.present(Span { start: start + span.start, end: start + span.end });
        let mut present = Spans::default();
        for span in self.pages.iter() {
            let found = there(span)?;
            found
                .iter()
                .for_each(|span| present.append(Span { start: span.start - start, end: span.end - start }));
        }
        Ok(self.pages.without(&present))
    }
}

/// Of each piece of memory, by its inode.
pub(super) type Mappers = BTreeMap<u64, Vec<Mapper>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_taken_away_is_lost_though_it_is_there_again() {
        let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(64 * PAGE).unwrap();
        let page = |at: u64| Span { start: at * PAGE, end: (at + 1) * PAGE };
        let all: Spans = [page(3), page(4), page(5), page(9)].into_iter().collect();
        all.iter().for_each(|span| file.write_all_at(&[7; 4096], span.start).unwrap());
        file.write_all_at(&[7; 4096], 4 * PAGE).unwrap();
        let held = Held::new(&file, all).unwrap();
        if let Err(e) = Scanner::own().and_then(|scanner| scanner.present(page(1))) {
            return eprintln!("skipped: {e}");
        }
        assert!(held.lost().unwrap().is_empty());
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, 4 * PAGE, PAGE).unwrap();
        file.read_exact_at(&mut [0; 10], 4 * PAGE).unwrap();
        file.write_all_at(&[8; 10], 9 * PAGE).unwrap();
        assert_eq!(held.lost().unwrap().into_vec(), [page(4)]);
    }
}
