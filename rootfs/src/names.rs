//! The paths in an archive, and OCI's whiteouts among them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::Error;

/// The record of an extended attribute: name and value in hexadecimal, with a colon between them. The customary
/// `SCHILY.xattr.*` holds the value as it is, which this tar reader takes apart at a line feed.
pub(crate) const ATTRIBUTE: &str = "FASTMIG.xattr";
/// The record of a symbolic link's target, byte for byte, in hexadecimal; the tar header holds it tidied up.
pub(crate) const TARGET: &str = "FASTMIG.target";
/// The record of the time of the last change, with its fraction.
pub(crate) const TIME: &str = "mtime";

/// The last entry: without it the archive is not whole.
pub(crate) const END: &str = ".wh..wh..end";

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's name means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Something is there.
    There(PathBuf),
    /// Nothing of this path is there any more.
    Gone(PathBuf),
    /// The archive ends.
    End,
    /// Nothing that the image has below this directory is there any more.
    Emptied(PathBuf),
}

/// The whiteout of `path`.
pub(crate) fn gone(path: &Path) -> PathBuf {
    let mut name = WHITEOUT.to_vec();
    name.extend_from_slice(path.file_name().unwrap_or_default().as_bytes());
    path.with_file_name(OsString::from_vec(name))
}

/// The whiteout of everything below `directory`.
pub(crate) fn emptied(directory: &Path) -> PathBuf {
    directory.join(OsStr::from_bytes(OPAQUE))
}

/// Reads an entry's path. One that leaves the root, or is not written as a packer writes it, is refused.
pub(crate) fn read(path: &Path) -> Result<Name, Error> {
    let damaged = |problem| Error::Damaged { path: path.into(), problem };
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !normal || path.as_os_str().as_bytes().contains(&0) {
        return Err(damaged("is no path below the root"));
    }
    let name = path.file_name().ok_or_else(|| damaged("has no name"))?.as_bytes();
    let parent = path.parent().unwrap_or(Path::new(""));
    if path == Path::new(END) {
        return Ok(Name::End);
    }
    if name == OPAQUE {
        return Ok(Name::Emptied(parent.into()));
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Name::There(path.into())),
        Some(b"" | b"." | b"..") => Err(damaged("is a whiteout of nothing")),
        Some(name) => Ok(Name::Gone(parent.join(OsStr::from_bytes(name)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_read_as_they_are_written() {
        let path = Path::new("etc/motd");
        assert_eq!(read(&gone(path)).unwrap(), Name::Gone(path.into()));
        assert_eq!(read(&emptied(path)).unwrap(), Name::Emptied(path.into()));
        assert_eq!(read(path).unwrap(), Name::There(path.into()));
        assert_eq!(read(&gone(Path::new("a"))).unwrap(), Name::Gone("a".into()));
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        for bad in ["/etc/passwd", "../x", "a/../../x", "", ".", "a/.wh.", "a/.wh...", ".wh...", "a/.wh.."] {
            assert!(read(Path::new(bad)).is_err(), "{bad:?}");
        }
    }
}
