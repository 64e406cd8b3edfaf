//! The files that processes map shared and writable: what is written through a mapping need not change a file's times.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{openat2, statx, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, CWD};

use crate::walk::Entry;
use crate::Error;

/// A file, as the file system that is mounted shows it: an overlay's files have numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
}

/// Files that are mapped.
#[derive(Debug, Default)]
pub(crate) struct Mapped(HashSet<Identity>);

impl Mapped {
    /// By any of these processes of the host.
    pub(crate) fn by(processes: &BTreeSet<i32>) -> Result<Self, Error> {
        let mut mapped = Self::default();
        for pid in processes {
            let path = PathBuf::from(format!("/proc/{pid}/maps"));
            match std::fs::read(&path) {
                Ok(maps) => mapped.add(*pid, &maps)?,
                Err(e) if has_ended(&e) => {}
                Err(e) => return Err(Error::io("read", &path)(e)),
            }
        }
        Ok(mapped)
    }

    fn add(&mut self, pid: i32, maps: &[u8]) -> Result<(), Error> {
        for range in shared_and_writable(maps) {
            let path = PathBuf::from(format!("/proc/{pid}/map_files/{range}"));
            match identity(CWD, &path, AtFlags::empty()) {
                Ok(found) => _ = self.0.insert(found),
                Err(e) if has_ended(&e) => {}
                Err(e) => return Err(Error::io("look at", &path)(e)),
            }
        }
        Ok(())
    }

    /// Whether the file that is `path` below `root` is one of them. One that cannot be looked at may be.
    pub(crate) fn holds(&self, root: &OwnedFd, path: &Path) -> bool {
        !self.0.is_empty() && identity_below(root, path).map_or(true, |found| self.0.contains(&found))
    }

    /// Whether what was looked at is one of them, on a file system that shows its own numbers.
    pub(crate) fn holds_entry(&self, entry: &Entry<'_>) -> bool {
        let device = (rustix::fs::major(entry.stat.st_dev), rustix::fs::minor(entry.stat.st_dev));
        self.0.contains(&Identity { device, inode: entry.stat.st_ino })
    }
}

/// The address ranges of a `maps` that are mapped so; the kernel names them likewise in `map_files`.
fn shared_and_writable(maps: &[u8]) -> impl Iterator<Item = &str> {
    maps.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (range, rights) = (fields.next()?, fields.next()?);
        let wanted = rights.get(1) == Some(&b'w') && rights.get(3) == Some(&b's');
        if wanted {
            std::str::from_utf8(range).ok()
        } else {
            None
        }
    })
}

fn identity_below(root: &OwnedFd, path: &Path) -> io::Result<Identity> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(root, path, flags, Mode::empty(), how)?;
    identity(&file, Path::new(""), AtFlags::EMPTY_PATH)
}

/// Without asking a file system's server, which may be a process that is frozen.
fn identity(directory: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<Identity> {
    let found = statx(directory, path, flags | AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    Ok(Identity { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// The process has ended, or unmapped the file.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_shared_and_writable_counts() {
        let maps = b"\
1000-2000 rw-s 00000000 00:2b 77 /data/shared file\n\
2000-3000 rw-p 00000000 00:2b 78 /data/private\n\
3000-4000 r--s 00000000 00:2b 79 /data/read\n\
4000-5000 -w-s 00000000 00:2b 80 /data/written (deleted)\n\
5000-6000 rwxs 00000000 00:2b 81 /data/run\n\
7ffd0000-7ffe0000 rw-p 00000000 00:00 0 [stack]\n";
        assert_eq!(shared_and_writable(maps).collect::<Vec<_>>(), ["1000-2000", "4000-5000", "5000-6000"]);
    }

    #[test]
    fn a_process_that_has_ended_maps_nothing() {
        let mapped = Mapped::by(&BTreeSet::from([i32::MAX])).unwrap();
        assert!(mapped.0.is_empty());
    }

    #[test]
    fn a_file_is_found_under_each_of_its_names() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("one"), "").unwrap();
        std::fs::write(root.path().join("other"), "").unwrap();
        std::fs::hard_link(root.path().join("one"), root.path().join("two")).unwrap();
        let open = OwnedFd::from(std::fs::File::open(root.path()).unwrap());
        let one = identity(CWD, &root.path().join("one"), AtFlags::empty()).unwrap();
        let mapped = Mapped(HashSet::from([one]));
        assert!(mapped.holds(&open, Path::new("one")) && mapped.holds(&open, Path::new("two")));
        assert!(!mapped.holds(&open, Path::new("other")));
        assert!(mapped.holds(&open, Path::new("missing")), "what cannot be looked at may be mapped");
    }
}
