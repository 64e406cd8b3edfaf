//! A directory, entry by entry. Whoever writes to it may move directories meanwhile: each is opened below the top,
//! never through a symbolic link or a mount, and one at a time, so that no depth uses up descriptors or the stack.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, llistxattr, openat, statat, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::view::open_below;
use crate::{names, Error};

/// One entry of a directory.
pub(crate) struct Entry<'a> {
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// As its container sees it, relative to the root.
    pub(crate) path: &'a Path,
    pub(crate) stat: Stat,
}

impl<'a> Entry<'a> {
    /// A directory itself, at `path`.
    pub(crate) fn itself(directory: BorrowedFd<'a>, path: &'a Path) -> Result<Self, Error> {
        let stat = fstat(directory).map_err(Error::io("look at", path))?;
        Ok(Self { parent: directory, name: OsStr::new("."), path, stat })
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The overlay's mark of something deleted.
    pub(crate) fn is_whiteout(&self) -> bool {
        is_whiteout(&self.stat)
    }

    /// Opens the regular file that was looked at, for reading. What has taken its place since is not opened, for it may
    /// be a device of the host's: then nothing is found.
    pub(crate) fn open_file(&self) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = openat(self.parent, self.name, flags, Mode::empty())?;
        let stat = fstat(&held)?;
        let same = (stat.st_dev, stat.st_ino) == (self.stat.st_dev, self.stat.st_ino);
        if !same || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::NOENT.into());
        }
        let path = format!("/proc/self/fd/{}", held.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
    }
}

/// As [`Entry::is_whiteout`].
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Calls `visit` for each entry below `top`, whose own path is `path`, directories before what is in them; one for
/// which it says `false` is not entered. What goes away meanwhile is passed over.
pub(crate) fn walk(
    top: &OwnedFd,
    path: &Path,
    visit: &mut dyn FnMut(&Entry<'_>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut ahead = vec![path.to_path_buf()];
    while let Some(next) = ahead.pop() {
        match open_below(top, next.strip_prefix(path).unwrap_or(&next), false) {
            Ok(directory) => ahead.extend(visit_all(&directory, &next, visit)?.into_iter().rev()),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
            Err(e) => return Err(Error::io("open", &next)(e)),
        }
    }
    Ok(())
}

/// Visits what is in one directory, and tells which directories are to be entered.
fn visit_all(
    directory: &OwnedFd,
    path: &Path,
    visit: &mut dyn FnMut(&Entry<'_>) -> Result<bool, Error>,
) -> Result<Vec<PathBuf>, Error> {
    let mut below = Vec::new();
    for name in names(directory.as_fd()).map_err(Error::io("list", path))? {
        let inside = path.join(&name);
        names::require_reachable(&inside)?;
        let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(Error::io("look at", &inside)(e)),
        };
        let entry = Entry { parent: directory.as_fd(), name: &name, path: &inside, stat };
        if visit(&entry)? && entry.kind() == FileType::Directory {
            below.push(inside);
        }
    }
    Ok(below)
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
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    PathBuf::from(OsString::from_vec(path))
}

/// The names of the extended attributes; none where the file system knows none.
pub(crate) fn attribute_names(path: &Path) -> io::Result<Vec<String>> {
    let mut buffer = vec![0; 65536];
    match llistxattr(path, &mut buffer) {
        Ok(length) => Ok(buffer[..length]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()),
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}
