//! Shared memory that is filled before its processes are there: memfds, which CRIU takes instead of its own.

use std::fs::File;
use std::io;

use fastmig_criu_view_layout::{segment, SEGMENTS};
use nix::fcntl::{fallocate, FallocateFlags};
use nix::unistd::Pid;

use super::dump::{entries, field};
use super::table::Table;
use super::{Span, ViewError};

/// The id of a segment that was given up: no image has it, for they are named by inodes.
pub(super) const DROPPED: u64 = u64::MAX;

/// Shared memory that CRIU restores from `pagemap-shmem-ID.img`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSpec {
    /// The number in the name of that image.
    pub id: u64,
    /// Its size in bytes, which must not be above the restored one.
    pub size: u64,
    /// The memfd's name as its maker gave it; empty for shared memory without a file.
    pub name: Vec<u8>,
}

/// A segment that is made.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) spec: SegmentSpec,
    /// Where it lies in CRIU's process.
    pub(super) location: u64,
}

/// The words of segments that are wanted.
pub(super) fn words(segments: &[SegmentSpec], there: &[Segment], most: u64) -> Result<Vec<u64>, ViewError> {
    let mut words = Vec::new();
    let kept = there.iter().filter(|segment| segment.spec.id != DROPPED);
    let mut bytes: u64 = kept.map(|segment| segment.spec.size).sum();
    let mut ids: Vec<u64> = there.iter().map(|segment| segment.spec.id).collect();
    for spec in segments {
        let wrong =
            |why| ViewError::Wrong { what: "shared memory", process: 0, start: spec.id, end: spec.id, why };
        if spec.size == 0 || spec.id == DROPPED || ids.contains(&spec.id) {
            return Err(wrong("it is empty or there twice"));
        }
        // The kernel's own limit on names.
        if spec.name.len() > 249 || spec.name.contains(&0) {
            return Err(wrong("it cannot have such a name"));
        }
        ids.push(spec.id);
        bytes = bytes.saturating_add(spec.size);
        words.extend([spec.id, spec.size, 0, 0, 0]);
        words.extend(name_words(&spec.name));
    }
    if bytes > most {
        return Err(ViewError::TooMany { what: "bytes of shared memory", count: bytes, most });
    }
    Ok(words)
}

fn name_words(name: &[u8]) -> impl Iterator<Item = u64> + '_ {
    (0..usize::try_from(segment::NAME_WORDS).unwrap_or(0)).map(|word| {
        let mut bytes = [0; 8];
        let part = name.get(word * 8..name.len().min(word * 8 + 8)).unwrap_or_default();
        bytes[..part.len()].copy_from_slice(part);
        u64::from_le_bytes(bytes)
    })
}

/// The memfd of the segment with this place in the table, in CRIU's process.
pub(super) fn open(table: &Table, criu: Pid, index: u64) -> io::Result<File> {
    let words = table.read(SEGMENTS, index + 1).map_err(io::Error::other)?;
    let entry = entries(&words, SEGMENTS.words).last().ok_or(io::ErrorKind::NotFound)?;
    let path = format!("/proc/{criu}/fd/{}", field(entry, segment::FD));
    File::options().read(true).write(true).open(path)
}

/// Frees the memory of a span.
pub(super) fn empty(memfd: &File, span: Span) -> io::Result<()> {
    let number = |value: u64| i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(memfd, flags, number(span.start)?, number(span.end - span.start)?)?;
    Ok(())
}

/// How many words an entry has.
pub(super) const WORDS: u64 = SEGMENTS.words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_bounded() {
        let spec = |id, size, name: &str| SegmentSpec { id, size, name: name.into() };
        let made = words(&[spec(7, 4096, "nine byte")], &[], 8192).unwrap();
        assert_eq!(made.len() as u64, WORDS);
        assert_eq!(made[..7], [7, 4096, 0, 0, 0, u64::from_le_bytes(*b"nine byt"), u64::from(b'e')]);
        assert!(words(&[spec(7, 4096, ""), spec(7, 4096, "")], &[], 8192).is_err());
        assert!(words(&[spec(7, 0, "")], &[], 8192).is_err());
        assert!(words(&[spec(7, 8193, "")], &[], 8192).is_err());
        assert!(words(&[spec(7, 1, &"n".repeat(250))], &[], 8192).is_err());
        let there = [Segment { spec: spec(7, 4096, ""), location: 0 }];
        assert!(words(&[spec(8, 4097, "")], &there, 8192).is_err());
    }
}
