//! Where clean pages were: what soft-dirty bits do not tell.
//!
//! `mremap` moves whole page tables as they are, and marks none of their pages. So a page may be clean and yet be another one
//! than at the last look: then it is in another frame, for both were in memory at once.

use std::collections::HashMap;

use crate::pagemap::Entry;
use crate::PAGE;

/// Pages that are kept together.
const TOGETHER: u64 = 512;

/// The frame, or place in swap, of each page at the last look: eight bytes each.
#[derive(Debug, Default)]
pub(crate) struct Places(HashMap<u64, Vec<u64>>);

impl Places {
    /// Of these pages, by their addresses.
    pub(crate) fn of(pages: impl IntoIterator<Item = (u64, Entry)>) -> Self {
        let mut known: HashMap<u64, Vec<u64>> = HashMap::new();
        for (page, entry) in pages {
            let (table, at) = position(page);
            known.entry(table).or_insert_with(|| vec![0; 512])[at] = entry.place();
        }
        Self(known)
    }

    /// Whether the page is populated, and was in the same place.
    pub(crate) fn has(&self, page: u64, entry: Entry) -> bool {
        let (table, at) = position(page);
        entry.place() != 0 && self.0.get(&table).is_some_and(|places| places[at] == entry.place())
    }
}

fn position(page: u64) -> (u64, usize) {
    let number = page / PAGE;
    (number / TOGETHER, usize::try_from(number % TOGETHER).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_in_its_place_alone() {
        const PRESENT: u64 = 1 << 63;
        const DIRTY: u64 = 1 << 55;
        let places = Places::of([(0x20_0000, Entry(PRESENT | 7)), (0x40_1000, Entry(PRESENT | 8 | DIRTY))]);
        assert!(places.has(0x20_0000, Entry(PRESENT | 7 | DIRTY)));
        assert!(places.has(0x40_1000, Entry(PRESENT | 8)));
        assert!(!places.has(0x20_0000, Entry(PRESENT | 8)), "moved");
        assert!(!places.has(0x20_1000, Entry(PRESENT | 7)), "not seen before");
        assert!(!places.has(0x20_1000, Entry(0)), "nothing");
    }
}
