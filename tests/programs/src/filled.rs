//! Memory full of patterns that changes by whole pages, and whose every page is known.
//!
//! What a page must hold follows from its address, from who wrote it, and from how often: its generation. The generations
//! lie in memory that moves as well, so their sum is kept apart.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, Result};
use nix::sys::mman::MmapAdvise;
use serde_json::{json, Value};

use crate::pattern::{page, seed, Page};
use crate::sys::{Mapping, Source};

/// Pages, all of them written at least once.
#[derive(Debug)]
pub(crate) struct Filled {
    mapping: Mapping,
    /// Whose pages of generation 0 these are: of the process that filled them, or that this one was forked from.
    origin: u64,
    process: u64,
    generations: Vec<AtomicU32>,
    written: AtomicU64,
    /// Held for writing while all pages are looked at.
    standstill: RwLock<()>,
}

impl Filled {
    /// Maps and fills `pages` pages in the process `process`.
    pub(crate) fn new(process: u64, pages: usize) -> Result<Self> {
        let mapping = Mapping::new(Source::Private, pages);
        Ok(Self::of(mapping.with_context(|| format!("cannot map {pages} pages"))?, process))
    }

    /// The same with huge pages, as far as there are any to be had.
    pub(crate) fn huge(process: u64, pages: usize) -> Result<Self> {
        let mapping =
            Mapping::new(Source::Private, pages).with_context(|| format!("cannot map {pages} pages"))?;
        // A kernel without them has no such advice.
        let _ = mapping.advise(&(0..pages), MmapAdvise::MADV_HUGEPAGE);
        Ok(Self::of(mapping, process))
    }

    /// Fills a mapping in the process `process`.
    pub(crate) fn of(mapping: Mapping, process: u64) -> Self {
        let pages = mapping.pages();
        let filled = Self {
            mapping,
            origin: process,
            process,
            generations: (0..pages).map(|_| AtomicU32::new(0)).collect(),
            written: AtomicU64::new(0),
            standstill: RwLock::new(()),
        };
        for index in 0..pages {
            filled.mapping.write(index, &filled.content(index, 0));
        }
        filled
    }

    /// Tells it that it is in the process `process` now, which was forked.
    pub(crate) fn inherit(&mut self, process: u64) {
        self.process = process;
    }

    /// How many pages there are.
    pub(crate) fn pages(&self) -> usize {
        self.mapping.pages()
    }

    /// How many pages were written since it was filled.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// A word of a page, to be read and no more.
    pub(crate) fn glance(&self, index: usize, word: usize) -> u64 {
        self.mapping.word(index, word)
    }

    /// A page, to be read and no more, while nobody writes it.
    pub(crate) fn read(&self, index: usize) -> Page {
        self.mapping.read(index)
    }

    fn content(&self, index: usize, generation: u32) -> Page {
        let writer = if generation == 0 { self.origin } else { self.process };
        page(seed([writer, self.mapping.address_of(index) as u64, u64::from(generation)]))
    }

    /// Gives each of these pages its next content. Two threads must not write one page.
    pub(crate) fn write(&self, pages: impl Iterator<Item = usize>) {
        let _moving = self.standstill.read().unwrap_or_else(PoisonError::into_inner);
        for index in pages {
            let generation = self.generations[index].load(Ordering::Relaxed) + 1;
            self.mapping.write(index, &self.content(index, generation));
            self.generations[index].store(generation, Ordering::Relaxed);
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks at all pages while nobody writes: `ok`, and else `wrong`, the first page that is not as it must be.
    pub(crate) fn check(&self) -> Value {
        let _still = self.standstill.write().unwrap_or_else(PoisonError::into_inner);
        let wrong = (0..self.pages()).find_map(|index| self.wrong(index)).or_else(|| self.lost());
        json!({ "ok": wrong.is_none(), "pages": self.pages(), "wrong": wrong })
    }

    fn wrong(&self, index: usize) -> Option<Value> {
        let generation = self.generations[index].load(Ordering::Relaxed);
        let found = self.mapping.read(index);
        if found == self.content(index, generation) {
            return None;
        }
        let older = (0..generation).rev().find(|&older| found == self.content(index, older));
        Some(json!({
            "process": self.process,
            "page": index,
            "address": format!("{:#x}", self.mapping.address_of(index)),
            "generation": generation,
            "found": older.map_or_else(|| foreign(&found), |older| json!({ "generation": older })),
        }))
    }

    /// Whether the generations themselves are of another time than the sum.
    fn lost(&self) -> Option<Value> {
        let sum: u64 = self.generations.iter().map(|one| u64::from(one.load(Ordering::Relaxed))).sum();
        let written = self.written();
        (sum != written).then(|| json!({ "process": self.process, "written": written, "generations": sum }))
    }
}

/// What a page holds that is of no generation.
fn foreign(found: &Page) -> Value {
    match found.iter().all(|word| *word == 0) {
        true => json!("zeros"),
        false => json!(format!("{:#018x} ...", found[0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::ZEROS;

    #[test]
    fn every_page_is_known_and_a_wrong_one_is_named() {
        let filled = Filled::new(3, 16).unwrap();
        filled.write([1, 5, 5].into_iter());
        assert_eq!(filled.check()["ok"], true);
        filled.mapping.write(5, &filled.content(5, 1));
        let told = filled.check();
        assert_eq!((&told["wrong"]["page"], &told["wrong"]["found"]["generation"]), (&json!(5), &json!(1)));
        filled.mapping.write(5, &ZEROS);
        assert_eq!(filled.check()["wrong"]["found"], "zeros");
    }

    #[test]
    fn a_page_that_is_old_together_with_its_generation_is_noticed() {
        let filled = Filled::new(0, 2).unwrap();
        filled.write([1].into_iter());
        filled.mapping.write(1, &filled.content(1, 0));
        filled.generations[1].store(0, Ordering::Relaxed);
        assert_eq!(filled.check()["ok"], false);
    }
}
