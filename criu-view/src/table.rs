//! The shared table, mapped: words, entries, and how one is found.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fastmig_criu_view_layout::{Region, SIZE};

use crate::sys;

/// Where the table is mapped; 0 when there is none.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// The table's words.
#[derive(Clone, Copy)]
pub(crate) struct Table(&'static [AtomicU64]);

/// Remembers where the table is mapped, for good.
pub(crate) fn set(address: usize) {
    ADDRESS.store(address, Ordering::Relaxed);
}

/// The table, if CRIU was started with one.
pub(crate) fn get() -> Option<Table> {
    let address = ADDRESS.load(Ordering::Relaxed);
    (address != 0).then(|| Table(sys::words(address, usize::try_from(SIZE / 8).unwrap_or(0))))
}

impl Table {
    /// Word `at`.
    pub(crate) fn word(self, at: u64) -> Option<&'static AtomicU64> {
        self.0.get(usize::try_from(at).ok()?)
    }

    /// Where word `at` lies in this process's memory.
    pub(crate) fn address(self, at: u64) -> Option<usize> {
        self.word(at).map(|word| core::ptr::from_ref(word) as usize)
    }

    /// How many entries a region has.
    pub(crate) fn count(self, region: Region) -> u64 {
        self.word(region.count).map_or(0, |word| word.load(Ordering::Acquire)).min(region.entries)
    }

    pub(crate) fn set_count(self, region: Region, count: u64) {
        if let Some(word) = self.word(region.count) {
            word.store(count, Ordering::Release);
        }
    }

    /// Entry `index`.
    pub(crate) fn entry(self, region: Region, index: u64) -> Option<Entry> {
        Some(Entry { table: self, at: region.entry(index)? })
    }

    /// The index of the first entry whose first two words are not below (`first`, `second`).
    pub(crate) fn first_not_below(self, region: Region, first: u64, second: u64) -> u64 {
        let (mut low, mut high) = (0, self.count(region));
        while low < high {
            let middle = low + (high - low) / 2;
            let below = self
                .entry(region, middle)
                .is_some_and(|entry| (entry.get(0), entry.get(1)) < (first, second));
            if below {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The entry whose first two words are these.
    pub(crate) fn find(self, region: Region, first: u64, second: u64) -> Option<Entry> {
        let index = self.first_not_below(region, first, second);
        (index < self.count(region))
            .then(|| self.entry(region, index))?
            .filter(|entry| (entry.get(0), entry.get(1)) == (first, second))
    }

    /// The last entry of `process` that begins at or below `address`.
    pub(crate) fn at_or_below(self, region: Region, process: u64, address: u64) -> Option<Entry> {
        let index = self.first_not_below(region, process, address.checked_add(1)?).checked_sub(1)?;
        self.entry(region, index).filter(|entry| entry.get(0) == process)
    }
}

/// One entry of a region.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    table: Table,
    at: u64,
}

impl Entry {
    fn word(self, field: u64) -> Option<&'static AtomicU64> {
        self.table.word(self.at.checked_add(field)?)
    }

    pub(crate) fn get(self, field: u64) -> u64 {
        self.word(field).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    pub(crate) fn set(self, field: u64, value: u64) {
        if let Some(word) = self.word(field) {
            word.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn add(self, field: u64, value: u64) {
        if let Some(word) = self.word(field) {
            word.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Where word `field` lies in this process's memory.
    pub(crate) fn address(self, field: u64) -> Option<usize> {
        self.table.address(self.at.checked_add(field)?)
    }
}
