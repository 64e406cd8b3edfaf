//! The paths in an archive, and the records that say what else is to be known of one.
//!
//! No file name has a meaning of its own: an application may name its files as it likes.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::Error;

/// The record of an extended attribute: name and value in hexadecimal, with a colon between them. The customary
/// `SCHILY.xattr.*` holds the value as it is, which a tar reader takes apart at a line feed.
pub(crate) const ATTRIBUTE: &str = "FASTMIG.xattr";
/// The record of a symbolic link's target, byte for byte, in hexadecimal; the tar header holds it tidied up.
pub(crate) const TARGET: &str = "FASTMIG.target";
/// The record of where a file with holes has data: see [`crate::extents`]. Its content is the data alone.
pub(crate) const SPARSE: &str = "FASTMIG.sparse";
/// The record of the time of the last change, with its fraction.
pub(crate) const TIME: &str = "mtime";
/// The record of a [`Mark`].
pub(crate) const MARK: &str = "FASTMIG.mark";

/// All records of one entry together; no packer writes more, and no reader holds more in memory.
pub(crate) const RECORDS_LIMIT: usize = 1 << 20;
/// The kernel's limit of a path, its final zero included.
const PATH_LIMIT: usize = 4096;

/// Says of an entry that it is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing of this path is there any more.
    Gone,
    /// Nothing that the image has below this directory is there any more.
    Emptied,
    /// The archive holds all that its source has: what is not in it goes. Its path has no meaning.
    Whole,
    /// A file system in memory is mounted here; it and what is in it follow.
    Memory,
    /// A volume is mounted here; it and what is in it follow.
    Volume,
    /// The archive ends: without this entry it is not whole. Its path has no meaning.
    End,
}

impl Mark {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Emptied => "emptied",
            Self::Whole => "whole",
            Self::Memory => "memory",
            Self::Volume => "volume",
            Self::End => "end",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let all = [Self::Gone, Self::Emptied, Self::Whole, Self::Memory, Self::Volume, Self::End];
        all.into_iter().find(|mark| mark.text() == text)
    }
}

/// Refuses a path that leaves the root, or is not written as a packer writes it.
pub(crate) fn require_below(path: &Path) -> Result<(), Error> {
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !normal || path.file_name().is_none() || path.as_os_str().as_bytes().contains(&0) {
        return Err(Error::Damaged { path: path.into(), problem: "is no path below the root" });
    }
    Ok(())
}

/// Refuses a path that cannot be opened in one piece: it is made of steps that lead deeper and deeper.
pub(crate) fn require_reachable(path: &Path) -> Result<(), Error> {
    if path.as_os_str().len() < PATH_LIMIT {
        return Ok(());
    }
    Err(Error::TooDeep { path: path.components().take(3).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        for mark in [Mark::Gone, Mark::Emptied, Mark::Whole, Mark::Memory, Mark::Volume, Mark::End] {
            assert_eq!(Mark::read(mark.text()), Some(mark));
        }
        assert_eq!(Mark::read("GONE"), None);
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        for bad in ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b"] {
            assert!(require_below(Path::new(bad)).is_err(), "{bad:?}");
        }
        for good in ["etc/passwd", ".wh.x", ".wh..wh..opq", "a/.wh..", "..."] {
            assert!(require_below(Path::new(good)).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn only_paths_that_the_kernel_takes_are_reachable() {
        assert!(require_reachable(Path::new(&"d/".repeat(2047))).is_ok());
        let error = require_reachable(Path::new(&"d/".repeat(2048))).unwrap_err();
        assert!(error.to_string().contains("\"d/d/d\""), "{error}");
    }
}
