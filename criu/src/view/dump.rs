//! A dump that leaves out what was sent beforehand.

use std::io;
use std::os::fd::OwnedFd;

use fastmig_criu_view_layout::{hidden, process_word, shared, smaps, HIDDEN, SHARED, SMAPS, TEXT};

use super::table::Table;
use super::ViewError;

/// A mapping whose content CRIU shall not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HiddenMapping {
    /// The process, as CRIU numbers it.
    pub pid: i32,
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
}

/// Shared memory whose content CRIU shall not see: a memfd, or what is mapped shared without a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HiddenFile {
    /// The device, as `stat` tells it of the mapped file.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// What a dump sees. Handed over with [`Launch::with_dump_view`](crate::Launch::with_dump_view), filled when the
/// application is frozen, right before the dump is asked for.
#[derive(Debug)]
pub struct DumpView {
    table: Table,
    mappings: Vec<HiddenMapping>,
    files: Vec<HiddenFile>,
    texts: u64,
}

impl DumpView {
    /// A view that hides nothing.
    ///
    /// # Errors
    /// When the system has no memory to share.
    pub fn new() -> Result<Self, ViewError> {
        Ok(Self { table: Table::new()?, mappings: Vec::new(), files: Vec::new(), texts: 0 })
    }

    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.table.descriptor()
    }

    /// Hides these mappings and no others. `texts` are the smaps of processes, of which only the first line of each mapping
    /// and its `VmFlags` need be there: with the kernel's own, CRIU waits for a walk over all page tables.
    ///
    /// # Errors
    /// When mappings overlap or there are too many.
    pub fn hide(&mut self, mappings: &[HiddenMapping], texts: &[(i32, Vec<u8>)]) -> Result<(), ViewError> {
        let mut sorted = mappings.to_vec();
        sorted.sort_unstable();
        check(&sorted)?;
        let words: Vec<u64> = sorted.iter().flat_map(|m| [process_word(m.pid), m.start, m.end, 0]).collect();
        self.table.write(HIDDEN, "hidden mappings", 0, &words)?;
        self.mappings = sorted;
        self.show(texts)
    }

    fn show(&mut self, texts: &[(i32, Vec<u8>)]) -> Result<(), ViewError> {
        let mut texts: Vec<_> = texts.iter().collect();
        texts.sort_unstable_by_key(|(pid, _)| process_word(*pid));
        let (mut all, mut words) = (Vec::new(), Vec::new());
        for (pid, text) in &texts {
            words.extend([process_word(*pid), all.len() as u64, text.len() as u64, 0]);
            all.extend_from_slice(text);
            all.resize(all.len().next_multiple_of(8), 0);
        }
        self.table.write_bytes(TEXT, "words of smaps", &all)?;
        self.texts = texts.len() as u64;
        self.table.write(SMAPS, "processes", 0, &words)
    }

    /// Hides the content of these files and of no others.
    ///
    /// # Errors
    /// When there are too many.
    pub fn hide_shared(&mut self, files: &[HiddenFile]) -> Result<(), ViewError> {
        let mut sorted = files.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let words: Vec<u64> = sorted.iter().flat_map(|file| [file.device, file.inode, 0]).collect();
        self.table.write(SHARED, "hidden files", 0, &words)?;
        self.files = sorted;
        Ok(())
    }

    /// Whether CRIU has looked at everything that was hidden: what it has not asked for it may have dumped, or not know.
    ///
    /// # Errors
    /// Names the first mapping or file that it has not asked for as a whole.
    pub fn check(&self) -> Result<(), ViewError> {
        let words = self.table.read(HIDDEN, self.mappings.len() as u64)?;
        let looks = self.mappings.iter().zip(entries(&words, HIDDEN.words));
        let looks = looks.map(|(mapping, entry)| (*mapping, field(entry, hidden::COVERED)));
        let amiss: Vec<_> = looks.filter(|(mapping, covered)| *covered != mapping.end).collect();
        if let Some((HiddenMapping { pid, start, end }, covered)) = amiss.first().copied() {
            let all = only_some(amiss.iter().map(|(mapping, _)| *mapping).collect(), self.mappings.len());
            return Err(ViewError::NotAsked { pid, start, end, covered, all });
        }
        let words = self.table.read(SHARED, self.files.len() as u64)?;
        for (file, entry) in self.files.iter().zip(entries(&words, SHARED.words)) {
            if field(entry, shared::ASKED) == 0 {
                return Err(ViewError::FileNotAsked { inode: file.inode });
            }
        }
        Ok(())
    }

    /// How many processes' smaps CRIU has got from here instead of from the kernel.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn smaps_shown(&self) -> Result<usize, ViewError> {
        let words = self.table.read(SMAPS, self.texts)?;
        Ok(entries(&words, SMAPS.words).filter(|entry| field(entry, smaps::SHOWN) > 0).count())
    }
}

/// Nothing when it is all of them: then the fault lies elsewhere.
pub(super) fn only_some(mappings: Vec<HiddenMapping>, of: usize) -> Vec<HiddenMapping> {
    if mappings.len() == of {
        return Vec::new();
    }
    mappings
}

pub(super) fn entries(words: &[u64], length: u64) -> std::slice::ChunksExact<'_, u64> {
    words.chunks_exact(usize::try_from(length).unwrap_or(1))
}

pub(super) fn field(entry: &[u64], at: u64) -> u64 {
    usize::try_from(at).ok().and_then(|at| entry.get(at)).copied().unwrap_or(0)
}

fn check(sorted: &[HiddenMapping]) -> Result<(), ViewError> {
    let mut last: Option<HiddenMapping> = None;
    for mapping in sorted {
        let HiddenMapping { pid, start, end } = *mapping;
        let wrong = |why| ViewError::Wrong { what: "hidden mapping", process: pid, start, end, why };
        if start >= end || start % 4096 != 0 || end % 4096 != 0 {
            return Err(wrong("it is not made of pages"));
        }
        if last.is_some_and(|last| last.pid == pid && last.end > start) {
            return Err(wrong("it overlaps the one before"));
        }
        last = Some(*mapping);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pid: i32, start: u64, end: u64) -> HiddenMapping {
        HiddenMapping { pid, start, end }
    }

    #[test]
    fn mappings_that_overlap_or_are_empty_are_refused() {
        let mut view = DumpView::new().unwrap();
        view.hide(&[mapping(1, 0x3000, 0x4000), mapping(1, 0x1000, 0x3000), mapping(2, 0x1000, 0x9000)], &[])
            .unwrap();
        assert!(view.hide(&[mapping(1, 0x1000, 0x3000), mapping(1, 0x2000, 0x4000)], &[]).is_err());
        assert!(view.hide(&[mapping(1, 0x1000, 0x1000)], &[]).is_err());
        assert!(view.hide(&[mapping(1, 0x1001, 0x2000)], &[]).is_err());
    }

    #[test]
    fn what_nobody_asked_for_is_named() {
        let mut view = DumpView::new().unwrap();
        assert!(view.check().is_ok());
        view.hide(&[mapping(7, 0x1000, 0x3000)], &[]).unwrap();
        let error = view.check().unwrap_err();
        assert!(matches!(error, ViewError::NotAsked { pid: 7, start: 0x1000, end: 0x3000, covered: 0, .. }));
        assert!(error.mappings().is_empty(), "it is all that there is");
        let (bad, good) = (mapping(7, 0x1000, 0x3000), mapping(8, 0x1000, 0x3000));
        view.hide(&[bad, good], &[]).unwrap();
        view.table.write(HIDDEN, "", 0, &[7, 0x1000, 0x3000, 0, 8, 0x1000, 0x3000, 0x3000]).unwrap();
        assert_eq!(view.check().unwrap_err().mappings(), [bad]);
        view.hide(&[mapping(7, 0x1000, 0x3000)], &[]).unwrap();
        view.table.write(HIDDEN, "", 0, &[7, 0x1000, 0x3000, 0x3000]).unwrap();
        assert!(view.check().is_ok());
        view.hide_shared(&[HiddenFile { device: 1, inode: 5 }]).unwrap();
        assert!(matches!(view.check().unwrap_err(), ViewError::FileNotAsked { inode: 5 }));
    }
}
