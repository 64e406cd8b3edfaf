//! Pages of shared memory, read to be sent. Of what was read a hash is kept: a moment later there may be something else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::object::UNKNOWN;
use crate::spans::Spans;
use crate::{Span, PAGE, PAGE_BYTES};

/// Not read yet.
const UNREAD: u64 = 0;

/// Reads pages of a round, by any number of threads.
#[derive(Debug)]
pub struct SharedReader {
    file: Arc<File>,
    /// With the place of each one's first page in `hashes`.
    spans: Vec<(Span, usize)>,
    hashes: Vec<AtomicU64>,
}

impl SharedReader {
    pub(super) fn new(file: Arc<File>, pages: &Spans) -> Self {
        let mut count = 0;
        let mut spans = Vec::new();
        for span in pages.iter() {
            spans.push((span, count));
            count += usize::try_from((span.end - span.start) / PAGE).unwrap_or(0);
        }
        Self { file, spans, hashes: (0..count).map(|_| AtomicU64::new(UNREAD)).collect() }
    }

    /// Fills `into` from `offset` on, for the receiver. What is not there (any more) reads as zeros.
    ///
    /// # Errors
    /// When the system cannot read.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        read_pages(&self.file, offset, into)?;
        let end = offset + into.len() as u64;
        let mut page = offset / PAGE * PAGE;
        while page < end {
            let whole = page >= offset && page + PAGE <= end;
            let start = usize::try_from(page.saturating_sub(offset)).unwrap_or(usize::MAX);
            let content = whole.then(|| into.get(start..start + PAGE_BYTES)).flatten();
            self.note(page, content.map_or(UNKNOWN, hash));
            page += PAGE;
        }
        Ok(())
    }

    /// Read twice with different content, or in parts, nobody knows what the receiver has.
    fn note(&self, page: u64, hash: u64) {
        let Some(place) = self.place(page) else { return };
        let before = place.compare_exchange(UNREAD, hash, Ordering::AcqRel, Ordering::Acquire);
        if before.is_err_and(|before| before != hash) {
            place.store(UNKNOWN, Ordering::Release);
        }
    }

    fn place(&self, page: u64) -> Option<&AtomicU64> {
        let after = self.spans.partition_point(|(span, _)| span.start <= page);
        let (span, first) = self.spans.get(after.checked_sub(1)?).filter(|(span, _)| page < span.end)?;
        self.hashes.get(first + usize::try_from((page - span.start) / PAGE).ok()?)
    }

    /// Each page that was read, with what the receiver has of it then.
    pub(super) fn was_read(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pages = self.spans.iter().flat_map(|(span, _)| (span.start..span.end).step_by(PAGE_BYTES));
        let read = pages.zip(&self.hashes).map(|(page, hash)| (page, hash.load(Ordering::Acquire)));
        read.filter(|(_, hash)| *hash != UNREAD)
    }
}

/// Of a page; none of the values below 2, which have meanings of their own.
pub(super) fn hash(page: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(page).max(2)
}

/// Behind the end there are zeros.
pub(super) fn read_pages(file: &File, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => {
                into[done..].fill(0);
                break;
            }
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_known_unless_it_was_two_things() {
        let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(8 * PAGE).unwrap();
        file.write_all_at(&[7; 8 * 4096], 0).unwrap();
        let file = Arc::new(file);
        let span = |from: u64, to: u64| Span { start: from * PAGE, end: to * PAGE };
        let reader = SharedReader::new(Arc::clone(&file), &[span(0, 3), span(5, 7)].into_iter().collect());
        let mut bytes = vec![0; 2 * 4096];
        reader.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 2 * 4096]);
        reader.read(5 * PAGE, &mut bytes).unwrap();
        let sevens = hash(&[7; 4096]);
        let known = |pages: &[u64]| pages.iter().map(|page| (page * PAGE, sevens)).collect::<Vec<_>>();
        assert_eq!(reader.was_read().collect::<Vec<_>>(), known(&[0, 1, 5, 6]));
        reader.read(0, &mut bytes[..4096]).unwrap(); // once more, and it is the same
        reader.read(5 * PAGE + 1, &mut bytes[..10]).unwrap(); // a part
        file.write_all_at(&[8], 6 * PAGE).unwrap();
        reader.read(6 * PAGE, &mut bytes[..4096]).unwrap(); // another content
        let unknown = [(5 * PAGE, UNKNOWN), (6 * PAGE, UNKNOWN)];
        assert_eq!(reader.was_read().collect::<Vec<_>>(), [known(&[0, 1]), unknown.to_vec()].concat());
    }
}
