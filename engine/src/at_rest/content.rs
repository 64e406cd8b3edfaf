//! A content file: pages, and beside them their hashes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::{PAGE, PAGE_BYTES};
use crate::image::open_nofollow;

/// How many bytes a hash takes: all of BLAKE3, for an application may choose what it writes.
pub(super) const HASH: usize = blake3::OUT_LEN;
pub(super) type Hash = [u8; HASH];

const PREFIX: &str = "memory-";
const PAGES: &str = ".pages";
const HASHES: &str = ".hashes";
/// Digits of a file's number.
const DIGITS: usize = 16;

/// One content file. Its pages are counted from 0.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) number: u64,
    pages: File,
    hashes: File,
}

/// Why a page is not what was written.
#[derive(Debug)]
pub(super) enum Unread {
    /// It could not be read.
    Failed(io::Error),
    /// It is there, and another, or is not there at all.
    Damaged,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Damaged;
        }
        Self::Failed(error)
    }
}

impl Content {
    /// A new one in `directory`, with a number that none there has.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let first = u64::try_from(since.as_nanos()).unwrap_or(0);
        let new = |name: String| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true).mode(0o600).open(directory.join(name))
        };
        for number in first..=u64::MAX {
            match new(pages_name(number)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                pages => return Ok(Self { number, pages: pages?, hashes: new(hashes_name(number))? }),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The one with this number in `directory`, and how many pages it has.
    pub(super) fn open(directory: &Path, number: u64) -> io::Result<(Self, u64)> {
        let open = |name: String| {
            let file = open_nofollow(&directory.join(name), 0)?;
            let status = file.metadata()?;
            if !status.is_file() {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            Ok((file, status.len()))
        };
        let ((pages, size), (hashes, size_of_hashes)) =
            (open(pages_name(number))?, open(hashes_name(number))?);
        let count = size / PAGE;
        if size % PAGE != 0 || count.checked_mul(HASH as u64) != Some(size_of_hashes) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((Self { number, pages, hashes }, count))
    }

    /// How many pages it has.
    pub(super) fn count(&self) -> io::Result<u64> {
        self.pages.metadata().map(|status| status.len() / PAGE)
    }

    /// Writes pages, and their hashes, from page `first` on.
    pub(super) fn write(&self, first: u32, pages: &[u8], hashes: &[Hash]) -> io::Result<()> {
        self.pages.write_all_at(pages, u64::from(first) * PAGE)?;
        self.hashes.write_all_at(hashes.as_flattened(), u64::from(first) * HASH as u64)
    }

    /// The hashes of `count` pages from page `first` on.
    pub(super) fn hashes(&self, first: u32, count: usize) -> io::Result<Vec<Hash>> {
        let mut hashes = vec![[0; HASH]; count];
        self.hashes.read_exact_at(hashes.as_flattened_mut(), u64::from(first) * HASH as u64)?;
        Ok(hashes)
    }

    /// Fills `into`, which is made of whole pages, from page `first` on, and looks at each whether it is what was written.
    pub(super) fn read(&self, first: u32, into: &mut [u8]) -> Result<(), Unread> {
        self.pages.read_exact_at(into, u64::from(first) * PAGE)?;
        let hashes = self.hashes(first, into.len() / PAGE_BYTES)?;
        let whole = into.chunks(PAGE_BYTES).zip(&hashes).all(|(page, wanted)| hash(page) == *wanted);
        if whole {
            Ok(())
        } else {
            Err(Unread::Damaged)
        }
    }
}

pub(super) fn hash(page: &[u8]) -> Hash {
    *blake3::hash(page).as_bytes()
}

pub(super) fn pages_name(number: u64) -> String {
    format!("{PREFIX}{number:016x}{PAGES}")
}

pub(super) fn hashes_name(number: u64) -> String {
    format!("{PREFIX}{number:016x}{HASHES}")
}

/// Whether a file is one of pages, whose content is looked at as it is used.
pub(crate) fn is_pages(name: &str) -> bool {
    let number = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(PAGES));
    number.is_some_and(|number| number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> (tempfile::TempDir, Content) {
        let root = tempfile::tempdir().unwrap();
        let content = Content::create(root.path()).unwrap();
        let pages = [[1; PAGE_BYTES], [2; PAGE_BYTES], [3; PAGE_BYTES]];
        let hashes: Vec<Hash> = pages.iter().map(|page| hash(page)).collect();
        content.write(0, pages.as_flattened(), &hashes).unwrap();
        (root, content)
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let (root, content) = content();
        let (opened, count) = Content::open(root.path(), content.number).unwrap();
        assert_eq!(count, 3);
        let mut page = vec![0; 2 * PAGE_BYTES];
        opened.read(1, &mut page).unwrap();
        assert_eq!((page[0], page[PAGE_BYTES]), (2, 3));
        content.pages.write_all_at(&[9], 2 * PAGE + 77).unwrap();
        assert!(matches!(opened.read(1, &mut page), Err(Unread::Damaged)));
        opened.read(0, &mut page).unwrap();
        content.pages.set_len(2 * PAGE).unwrap();
        assert!(matches!(opened.read(2, &mut page[..PAGE_BYTES]), Err(Unread::Damaged)));
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let (root, content) = content();
        content.pages.set_len(2 * PAGE).unwrap();
        assert!(Content::open(root.path(), content.number).is_err());
        content.pages.set_len(3 * PAGE - 1).unwrap();
        assert!(Content::open(root.path(), content.number).is_err());
        let path = root.path().join(pages_name(content.number));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(Content::open(root.path(), content.number).is_err());
    }

    #[test]
    fn a_number_is_given_once() {
        let (root, content) = content();
        assert_ne!(Content::create(root.path()).unwrap().number, content.number);
        assert!(is_pages(&pages_name(content.number)) && !is_pages(&hashes_name(content.number)));
        for name in ["pages-1.img", "memory-.pages", "memory-1.pages", "memory.map"] {
            assert!(!is_pages(name), "{name}");
        }
    }
}
