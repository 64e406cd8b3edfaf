//! Where a file has data: holes are neither read nor sent.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{seek, SeekFrom};
use rustix::io::Errno;

/// A file in more pieces than this has the rest of its holes sent as zeros.
const MOST: usize = 8192;

/// A file's length, and the pieces of it that are data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extents {
    pub(crate) size: u64,
    /// Offsets and lengths, in order, none of them empty.
    pub(crate) data: Vec<(u64, u64)>,
}

impl Extents {
    /// All of a file without holes.
    pub(crate) fn whole(size: u64) -> Self {
        Self { size, data: if size == 0 { Vec::new() } else { vec![(0, size)] } }
    }

    /// Those of an open file, of which `size` bytes count.
    pub(crate) fn of(file: &File, size: u64) -> io::Result<Self> {
        let mut data = Vec::new();
        let mut at = 0;
        while at < size {
            if data.len() + 1 == MOST {
                data.push((at, size - at));
                break;
            }
            let begin = match seek(file, SeekFrom::Data(at)) {
                Ok(begin) => begin,
                Err(Errno::NXIO) => break,
                // The file system does not tell.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Self::whole(size)),
                Err(e) => return Err(e.into()),
            };
            if begin >= size {
                break;
            }
            let end = seek(file, SeekFrom::Hole(begin)).unwrap_or(size).min(size);
            // It grows and shrinks while it is looked at.
            if end <= begin {
                break;
            }
            data.push((begin, end - begin));
            at = end;
        }
        Ok(Self { size, data })
    }

    /// How many bytes are data.
    pub(crate) fn length(&self) -> u64 {
        self.data.iter().map(|(_, length)| length).sum()
    }

    /// As a record, for a file with holes: `SIZE OFFSET+LENGTH,OFFSET+LENGTH...`.
    pub(crate) fn record(&self) -> Option<String> {
        if self.length() == self.size {
            return None;
        }
        let pieces: Vec<String> =
            self.data.iter().map(|(offset, length)| format!("{offset}+{length}")).collect();
        Some(format!("{} {}", self.size, pieces.join(",")))
    }

    /// From a record, for a member with `content` bytes; nothing when it makes no sense.
    pub(crate) fn read(record: &str, content: u64) -> Option<Self> {
        let (size, pieces) = record.split_once(' ')?;
        let size = size.parse().ok().filter(|size| i64::try_from(*size).is_ok())?;
        let mut found = Self { size, data: Vec::new() };
        let mut at = 0;
        for piece in pieces.split(',').filter(|piece| !piece.is_empty()) {
            let (offset, length) = piece.split_once('+')?;
            let (offset, length): (u64, u64) = (offset.parse().ok()?, length.parse().ok()?);
            let end = offset.checked_add(length)?;
            if offset < at || length == 0 || end > size || found.data.len() == MOST {
                return None;
            }
            found.data.push((offset, length));
            at = end;
        }
        (found.length() == content).then_some(found)
    }

    /// The data, one piece after the other; always as much as there was, for an archive would be damaged by a file that
    /// shrinks meanwhile.
    pub(crate) fn reader<'a>(&'a self, file: &'a File) -> impl Read + 'a {
        Reader { file, left: self.data.iter(), offset: 0, length: 0 }
    }
}

struct Reader<'a> {
    file: &'a File,
    left: std::slice::Iter<'a, (u64, u64)>,
    /// What is left of the present piece.
    offset: u64,
    length: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.length == 0 {
            match self.left.next() {
                Some(&(offset, length)) => (self.offset, self.length) = (offset, length),
                None => return Ok(0),
            }
        }
        let most = usize::try_from(self.length).unwrap_or(usize::MAX).min(buffer.len());
        let mut count = self.file.read_at(&mut buffer[..most], self.offset)?;
        if count == 0 {
            buffer[..most].fill(0);
            count = most;
        }
        self.offset += count as u64;
        self.length -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let extents = Extents { size: 1 << 40, data: vec![(4096, 10), (1 << 39, 1)] };
        let record = extents.record().unwrap();
        assert_eq!(Extents::read(&record, 11), Some(extents));
        let empty = Extents { size: 7, data: Vec::new() };
        assert_eq!(Extents::read(&empty.record().unwrap(), 0), Some(empty));
        assert_eq!(Extents::whole(7).record(), None);
        assert_eq!(Extents::whole(0).record(), None);
    }

    #[test]
    fn a_record_that_makes_no_sense_is_refused() {
        for (record, content) in [
            ("", 0),
            ("7", 0),
            ("x 0+1", 1),
            ("7 0+1", 2),
            ("7 0+8", 8),
            ("7 3+1,2+1", 2),
            ("7 0+2,1+2", 4),
            ("7 0+0", 0),
            ("7 1", 1),
            ("9223372036854775808 ", 0),
            ("9 18446744073709551615+2", 2),
        ] {
            assert_eq!(Extents::read(record, content), None, "{record:?}");
        }
        let many: Vec<String> = (0..=MOST).map(|number| format!("{}+1", number * 2)).collect();
        assert_eq!(Extents::read(&format!("99999999 {}", many.join(",")), MOST as u64 + 1), None);
    }

    #[test]
    fn what_shrinks_meanwhile_is_made_up_with_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"data", 0).unwrap();
        let extents = Extents { size: 8, data: vec![(1, 2), (3, 5)] };
        let mut read = Vec::new();
        extents.reader(&file).read_to_end(&mut read).unwrap();
        assert_eq!(read, b"ata\0\0\0\0");
    }

    #[test]
    fn a_file_in_many_pieces_is_whole_in_few() {
        let file = tempfile::tempfile().unwrap();
        let pieces = MOST as u64 + 10;
        for piece in 0..pieces {
            file.write_all_at(b"x", piece * 8192).unwrap();
        }
        let size = file.metadata().unwrap().len();
        let extents = Extents::of(&file, size).unwrap();
        assert!(extents.data.len() <= MOST);
        assert_eq!(extents.data.last().map(|(offset, length)| offset + length), Some(size));
        assert_eq!(
            Extents::read(&extents.record().unwrap_or(format!("{size} 0+{size}")), extents.length()),
            Some(extents)
        );
    }
}
