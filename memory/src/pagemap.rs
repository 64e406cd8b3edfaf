//! `/proc/PID/pagemap`: one word for each page, with the frame that it is in. Asked for only where sharing or soft-dirtiness
//! is to be known.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::{Span, PAGE, PAGE_BYTES};

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;
const GUARD: u64 = 1 << 58;
const EXCLUSIVE: u64 = 1 << 56;
const SOFT_DIRTY: u64 = 1 << 55;
const FRAME: u64 = (1 << 55) - 1;

/// The word of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    pub(crate) fn is_populated(self) -> bool {
        self.0 & (PRESENT | SWAPPED) != 0
    }

    pub(crate) fn is_soft_dirty(self) -> bool {
        self.0 & SOFT_DIRTY != 0
    }

    pub(crate) fn is_guard(self) -> bool {
        self.0 & GUARD != 0
    }

    /// Of no file, and not shared memory.
    pub(crate) fn is_private(self) -> bool {
        self.0 & FILE_OR_SHARED == 0
    }

    /// Nobody else has its frame mapped.
    pub(crate) fn is_exclusive(self) -> bool {
        self.0 & EXCLUSIVE != 0
    }

    /// The frame; nothing where it is not in memory, or not told to us.
    pub(crate) fn frame(self) -> Option<u64> {
        (self.0 & PRESENT != 0).then_some(self.0 & FRAME).filter(|frame| *frame != 0)
    }

    /// The frame, or the place in swap, as a number for comparing; zero where nothing is.
    pub(crate) fn place(self) -> u64 {
        if self.is_populated() {
            self.0 & (PRESENT | SWAPPED | FRAME)
        } else {
            0
        }
    }

    /// In the same frame, or the same place of swap.
    pub(crate) fn is_same_as(self, other: Self) -> bool {
        self.is_populated() && self.0 & FRAME != 0 && self.place() == other.place()
    }
}

/// The words of all pages of `span`, in steps.
pub(crate) fn entries(pagemap: &File, span: Span, mut each: impl FnMut(u64, Entry)) -> io::Result<()> {
    const STEP: u64 = 8192;
    let mut buffer = vec![0; 8 * 8192];
    let mut at = span.start;
    while at < span.end {
        let count = STEP.min((span.end - at) / PAGE);
        let bytes = &mut buffer[..usize::try_from(count * 8).unwrap_or(0)];
        pagemap.read_exact_at(bytes, at / PAGE * 8)?;
        for (page, word) in (at..).step_by(PAGE_BYTES).zip(bytes.chunks_exact(8)) {
            each(page, Entry(u64::from_ne_bytes(word.try_into().unwrap_or_default())));
        }
        at += count * PAGE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_taken_apart() {
        let entry = Entry(PRESENT | SOFT_DIRTY | 0x1234);
        assert!(entry.is_populated() && entry.is_soft_dirty() && entry.is_private() && !entry.is_guard());
        assert_eq!(entry.frame(), Some(0x1234));
        assert!(!Entry(SOFT_DIRTY).is_populated());
        assert_eq!(Entry(SWAPPED | 7).frame(), None);
        assert_eq!(Entry(PRESENT).frame(), None, "not told to us");
        assert!(!Entry(PRESENT | FILE_OR_SHARED | 1).is_private());
        assert!(Entry(GUARD).is_guard());
    }

    #[test]
    fn sameness_is_of_places_that_are_known() {
        assert!(Entry(PRESENT | 9 | SOFT_DIRTY).is_same_as(Entry(PRESENT | 9 | 1 << 57)));
        assert!(Entry(SWAPPED | 9).is_same_as(Entry(SWAPPED | 9)));
        assert!(!Entry(SWAPPED | 9).is_same_as(Entry(PRESENT | 9)));
        assert!(!Entry(PRESENT).is_same_as(Entry(PRESENT)), "not told to us");
        assert!(!Entry(0).is_same_as(Entry(0)));
    }
}
