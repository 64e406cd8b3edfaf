//! A directory, entry by entry. Whoever writes to it may move directories meanwhile: each is opened by its
//! descriptor, never through a symbolic link.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{openat, statat, AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::Error;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One entry of the upper directory.
pub(crate) struct Entry<'a> {
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// As its container sees it, relative to the root.
    pub(crate) path: &'a Path,
    pub(crate) stat: Stat,
}

impl Entry<'_> {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The overlay's mark of something deleted.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }

    pub(crate) fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(openat(self.parent, self.name, flags, Mode::empty())?)
    }
}

/// Calls `visit` for each entry below `directory`, whose own path is `path`, directories before what is in them; one for
/// which it says `false` is not entered. What goes away meanwhile is passed over.
pub(crate) fn walk(
    directory: OwnedFd,
    path: &Path,
    visit: &mut dyn FnMut(&Entry<'_>) -> Result<bool, Error>,
) -> Result<(), Error> {
    for name in names(directory.as_fd()).map_err(Error::io("list", path))? {
        let inside = path.join(&name);
        let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(e) => return Err(Error::io("look at", &inside)(e)),
        };
        let entry = Entry { parent: directory.as_fd(), name: &name, path: &inside, stat };
        if visit(&entry)? && entry.kind() == FileType::Directory {
            match openat(&directory, &name, DIRECTORY, Mode::empty()) {
                Ok(below) => walk(below, &inside, visit)?,
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
                Err(e) => return Err(Error::io("open", &inside)(e)),
            }
        }
    }
    Ok(())
}

/// The names in a directory, in order, so that two archives of the same files are the same.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// A path to what `name` in `parent` is, for the calls that take no descriptor of a directory.
pub(crate) fn through(parent: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    PathBuf::from(OsString::from_vec(path))
}
