//! Which page lies where, over the rounds. Shared memory is counted as a process with a number below zero, as in a plan.

use std::collections::BTreeMap;
use std::ops::Range;

use super::map::{Places, Run};

/// The number of the content file that is being written.
pub(super) const NEW: u16 = 0;

/// Where a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Which of the files.
    pub(super) file: u16,
    /// Which page of it.
    pub(super) index: u32,
}

/// What a page was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing is written for it.
    Zeros,
    /// The checkpoint before has it, here.
    Known(Slot),
    /// It must be written.
    New,
}

/// Of each process its pages, by their numbers. A slot of the new file is one page's alone.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    processes: BTreeMap<i32, BTreeMap<u64, Slot>>,
    free: Vec<u32>,
    next: u32,
}

impl Ledger {
    /// Notes what a page is now; where in the new file it must be written, if it must. Nothing, too, when that is full.
    pub(super) fn note(&mut self, process: i32, page: u64, found: Found) -> Result<Option<u32>, Full> {
        let pages = self.processes.entry(process).or_default();
        let own = pages.get(&page).filter(|slot| slot.file == NEW).map(|slot| slot.index);
        if found == Found::New {
            let index = match own.or_else(|| self.free.pop()) {
                Some(index) => index,
                None => {
                    let next = self.next;
                    self.next = next.checked_add(1).ok_or(Full)?;
                    next
                }
            };
            pages.insert(page, Slot { file: NEW, index });
            return Ok(Some(index));
        }
        self.free.extend(own);
        match found {
            Found::Known(slot) => drop(pages.insert(page, slot)),
            _ => drop(pages.remove(&page)),
        }
        Ok(None)
    }

    /// These pages are zeros, or nothing.
    pub(super) fn forget(&mut self, process: i32, pages: Range<u64>) {
        let Some(of_process) = self.processes.get_mut(&process) else { return };
        let gone: Vec<u64> = of_process.range(pages).map(|(page, _)| *page).collect();
        for page in gone {
            let slot = of_process.remove(&page).filter(|slot| slot.file == NEW);
            self.free.extend(slot.map(|slot| slot.index));
        }
    }

    /// Forgets all that is not among these pages: process, and from where to where, sorted and disjoint.
    pub(super) fn keep(&mut self, kept: &BTreeMap<i32, Vec<Range<u64>>>) {
        for (process, pages) in &mut self.processes {
            let kept = kept.get(process).map_or(&[][..], Vec::as_slice);
            let free = &mut self.free;
            pages.retain(|page, slot| {
                let after = kept.partition_point(|range| range.start <= *page);
                let stays = after.checked_sub(1).is_some_and(|at| *page < kept[at].end);
                if !stays && slot.file == NEW {
                    free.push(slot.index);
                }
                stays
            });
        }
        self.processes.retain(|_, pages| !pages.is_empty());
    }

    /// How many pages lie in each of `files` files.
    pub(super) fn used(&self, files: usize) -> Vec<u64> {
        let mut used = vec![0; files];
        for slot in self.processes.values().flat_map(BTreeMap::values) {
            if let Some(count) = used.get_mut(usize::from(slot.file)) {
                *count += 1;
            }
        }
        used
    }

    /// All pages that lie in `file`, in the order in which they lie there.
    pub(super) fn within(&self, file: u16) -> Vec<(u32, i32, u64)> {
        let all = self
            .processes
            .iter()
            .flat_map(|(process, pages)| pages.iter().map(move |(page, slot)| (*process, *page, *slot)));
        let mut found: Vec<_> = all
            .filter(|(.., slot)| slot.file == file)
            .map(|(process, page, slot)| (slot.index, process, page))
            .collect();
        found.sort_unstable();
        found
    }

    /// All that there is, with `number` in place of each file's.
    pub(super) fn places(&self, number: impl Fn(u16) -> u16) -> Places {
        let runs = |pages: &BTreeMap<u64, Slot>| {
            let mut runs: Vec<Run> = Vec::new();
            for (page, slot) in pages {
                let file = number(slot.file);
                match runs.last_mut() {
                    Some(run) if run.goes_on(*page, file, slot.index) => run.count += 1,
                    _ => runs.push(Run { page: *page, count: 1, file, index: slot.index }),
                }
            }
            runs
        };
        self.processes.iter().map(|(process, pages)| (*process, runs(pages))).collect()
    }
}

/// A content file has no number for one more page: 16 TiB of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: Slot = Slot { file: 3, index: 70 };

    #[test]
    fn a_page_has_one_slot_and_gives_it_back() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.note(1, 5, Found::New), Ok(Some(0)));
        assert_eq!(ledger.note(1, 6, Found::New), Ok(Some(1)));
        assert_eq!(ledger.note(1, 5, Found::New), Ok(Some(0)), "written over");
        assert_eq!(ledger.note(1, 5, Found::Known(KNOWN)), Ok(None));
        assert_eq!(ledger.note(2, 9, Found::New), Ok(Some(0)), "it was free");
        assert_eq!(ledger.note(1, 6, Found::Zeros), Ok(None));
        assert_eq!(ledger.used(4), [1, 0, 0, 1]);
        ledger.forget(2, 0..10);
        assert_eq!(ledger.used(4), [0, 0, 0, 1]);
    }

    #[test]
    fn what_is_not_kept_is_free() {
        let mut ledger = Ledger::default();
        (0..10).for_each(|page| assert!(ledger.note(1, page, Found::New).is_ok()));
        ledger.note(2, 4, Found::New).unwrap();
        ledger.keep(&BTreeMap::from([(1, vec![2..4, 8..9])]));
        let run = |page, count, index| Run { page, count, file: 0, index };
        assert_eq!(ledger.places(|file| file), Places::from([(1, vec![run(2, 2, 2), run(8, 1, 8)])]));
        let given: Vec<_> = (0..9).map(|page| ledger.note(3, page, Found::New).unwrap().unwrap()).collect();
        assert!(
            given[..8].iter().all(|index| ![2, 3, 8].contains(index) && *index < 11) && given[8] == 11,
            "{given:?}"
        );
    }

    proptest! {
        /// Whatever happens, no two pages have one slot.
        #[test]
        fn no_slot_is_two_pages(steps in prop::collection::vec((0..3_i32, 0..12_u64, 0..4_u8), 0..200)) {
            let mut ledger = Ledger::default();
            for (process, page, what) in steps {
                match what {
                    0 => drop(ledger.note(process, page, Found::Zeros)),
                    1 => drop(ledger.note(process, page, Found::Known(KNOWN))),
                    2 => ledger.forget(process, page..page + 2),
                    _ => drop(ledger.note(process, page, Found::New)),
                }
            }
            let new = ledger.within(NEW);
            prop_assert!(new.windows(2).all(|two| two[0].0 < two[1].0));
            prop_assert!(new.iter().all(|(index, ..)| *index < ledger.next && !ledger.free.contains(index)));
        }
    }
}
