//! The table, as a file: regions of entries of words.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use fastmig_criu_view_layout::{Region, HEADER, MAGIC, SIZE};

use super::ViewError;

/// The table's file. What is written to it the library sees at once.
#[derive(Debug)]
pub(super) struct Table(File);

impl Table {
    pub(super) fn new() -> Result<Self, ViewError> {
        let failed = |source| ViewError::Prepare { what: "make the table", source };
        let fd = rustix::fs::memfd_create("fastmig-view", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        let table = Self(File::from(fd));
        table.0.set_len(SIZE).map_err(failed)?;
        table.put(HEADER.at, &[MAGIC])?;
        Ok(table)
    }

    /// A descriptor to hand to CRIU.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// Replaces the entries of a region from `first` on, and says how many it has then.
    pub(super) fn write(
        &self,
        region: Region,
        what: &'static str,
        first: u64,
        words: &[u64],
    ) -> Result<(), ViewError> {
        let count = first + words.len() as u64 / region.words;
        if count > region.entries {
            return Err(ViewError::TooMany { what, count, most: region.entries });
        }
        self.put(region.at + first * region.words, words)?;
        self.put(region.count, &[count])
    }

    /// Puts one word of an entry that is there.
    pub(super) fn set(&self, region: Region, entry: u64, word: u64, value: u64) -> Result<(), ViewError> {
        self.put(region.at + entry * region.words + word, &[value])
    }

    /// Puts bytes at the beginning of a region, filled up with zeros to a whole word.
    pub(super) fn write_bytes(
        &self,
        region: Region,
        what: &'static str,
        bytes: &[u8],
    ) -> Result<(), ViewError> {
        let count = (bytes.len() as u64).div_ceil(8);
        if count > region.entries {
            return Err(ViewError::TooMany { what, count, most: region.entries });
        }
        self.0.write_all_at(bytes, region.at * 8).map_err(failed)
    }

    /// All entries of a region, one after the other.
    pub(super) fn read(&self, region: Region, entries: u64) -> Result<Vec<u64>, ViewError> {
        let entries = entries.min(region.entries);
        let mut bytes = vec![0; usize::try_from(entries * region.words * 8).unwrap_or(0)];
        self.0.read_exact_at(&mut bytes, region.at * 8).map_err(failed)?;
        let words = bytes.chunks_exact(8);
        Ok(words.map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))).collect())
    }

    fn put(&self, at: u64, words: &[u64]) -> Result<(), ViewError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.0.write_all_at(&bytes, at * 8).map_err(failed)
    }
}

fn failed(source: io::Error) -> ViewError {
    ViewError::Prepare { what: "use the table", source }
}
