//! Puts an archive's files into a container's root, as its processes see it.

mod make;
mod mirror;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use lz4_flex::frame::FrameDecoder;
use rustix::fs::{futimens, linkat, unlinkat, AtFlags, Timestamps};
use rustix::io::Errno;
use tar::{Archive, EntryType};

use self::make::{attributes, directory, dress_again, fifo, file, symlink};
use self::mirror::Brought;
use crate::members::{Member, Members};
use crate::names::{self, Mark};
use crate::view::{open_below, open_root, Kind, Place, View};
use crate::walk::walk;
use crate::{Error, Summary, Volumes};

/// Puts what `archive` holds into the root of host process `pid`. A packer's first archive takes the place of all that was
/// written there before; a later one is put over it. Where that process has something mounted, nothing is changed but
/// in its own file systems in memory and in these `volumes`.
///
/// # Errors
/// When the archive is damaged, leads out of the root, brings a volume that is not among these, or a file cannot be
/// written. What was put back by then stays.
pub fn unpack(pid: i32, volumes: &Volumes, archive: impl Read) -> Result<Summary, Error> {
    fill_root(open_root(pid)?, View::of(pid, volumes)?, archive)
}

pub(crate) fn fill_root(root: OwnedFd, view: View, archive: impl Read) -> Result<Summary, Error> {
    Target { root, view, times: BTreeMap::new(), summary: Summary::default(), brought: None }.fill(archive)
}

/// A root that is being filled.
struct Target {
    root: OwnedFd,
    view: View,
    /// Of directories: what is put into them changes their time.
    times: BTreeMap<PathBuf, Timestamps>,
    summary: Summary,
    /// What an archive that holds all of the source has said.
    brought: Option<Brought>,
}

impl Target {
    fn fill(mut self, archive: impl Read) -> Result<Summary, Error> {
        let mut archive = Archive::new(FrameDecoder::new(archive));
        let entries = archive.entries().map_err(Error::io("read", Path::new("the archive")))?;
        let mut members = Members::new(entries);
        while let Some(member) = members.next()? {
            let mark = member.records.mark(&member.path)?;
            if mark == Some(Mark::End) {
                if let Some(brought) = self.brought.take() {
                    self.mirror(&brought)?;
                }
                return Ok(self.finish());
            }
            names::require_below(&member.path)?;
            if mark == Some(Mark::Whole) {
                self.brought = Some(Brought::default());
                continue;
            }
            if let Some(brought) = &mut self.brought {
                brought.take(&member.path, mark)?;
            }
            self.take(member, mark)?;
            self.summary.entries += 1;
        }
        Err(Error::Damaged { path: "the archive".into(), problem: "has no end: it is not whole" })
    }

    fn take(&mut self, mut member: Member<'_, impl Read>, mark: Option<Mark>) -> Result<(), Error> {
        match (self.view.mounted(&member.path), mark) {
            (found, Some(Mark::Volume)) => self.begin_mounted(&member.path, found, Kind::Volume),
            (found, Some(Mark::Memory)) => self.begin_mounted(&member.path, found, Kind::Memory),
            (Some(Kind::Memory | Kind::Volume), None) => self.dress_mounted(&member),
            _ if self.is_foreign(&member.path) => Ok(()),
            (_, Some(Mark::Gone)) => self.remove(&member.path),
            (_, Some(Mark::Emptied)) => self.empty(&member.path),
            _ => self.put(&mut member),
        }
    }

    /// What follows is all that is to be in what is mounted at `path`. Files in memory may become files of the root.
    fn begin_mounted(&mut self, path: &Path, found: Option<Kind>, brought: Kind) -> Result<(), Error> {
        match found {
            Some(Kind::Memory | Kind::Volume) => self.empty(path),
            _ if brought == Kind::Volume => Err(Error::NoVolume { path: path.into() }),
            _ => Ok(()),
        }
    }

    /// A mounted directory itself: its owner, mode and times.
    fn dress_mounted(&mut self, member: &Member<'_, impl Read>) -> Result<(), Error> {
        if member.entry.header().entry_type() != EntryType::Directory {
            return Ok(());
        }
        let attributes = attributes(member)?;
        let directory = self.directory(&member.path)?;
        dress_again(directory.as_fd(), &attributes).map_err(Error::io("put back", &member.path))?;
        self.times.insert(member.path.clone(), attributes.times);
        Ok(())
    }

    /// Sets the times of directories, now that nothing more is put into them.
    fn finish(self) -> Summary {
        for (path, times) in &self.times {
            // One that a later entry has taken away has no time any more.
            if let Ok(directory) = self.directory(path) {
                let _ = futimens(&directory, times);
            }
        }
        self.summary
    }

    fn put(&mut self, member: &mut Member<'_, impl Read>) -> Result<(), Error> {
        let attributes = attributes(member)?;
        let path = member.path.as_path();
        let (parent, name) = self.parent(path)?;
        let failed = |e: io::Error| Error::io("put back", path)(e);
        let kind = member.entry.header().entry_type();
        if kind == EntryType::Directory {
            directory(parent.as_fd(), name, &attributes).map_err(failed)?;
            self.times.insert(path.into(), attributes.times);
            return Ok(());
        }
        self.clear(parent.as_fd(), name, path)?;
        match kind {
            EntryType::Regular => {
                let length = file(parent.as_fd(), name, &attributes, &mut member.entry).map_err(failed)?;
                self.summary.bytes += length;
                Ok(())
            }
            EntryType::Symlink => symlink(parent.as_fd(), name, &attributes).map_err(failed),
            EntryType::Fifo => fifo(parent.as_fd(), name, &attributes).map_err(failed),
            EntryType::Link => {
                self.link(parent.as_fd(), name, member.link.as_deref().unwrap_or(Path::new("")))
            }
            _ => Err(Error::Damaged { path: path.into(), problem: "is of a kind that does not travel" }),
        }
    }

    fn link(&self, parent: BorrowedFd<'_>, name: &OsStr, first: &Path) -> Result<(), Error> {
        names::require_below(first)?;
        let (from, old) = self.parent(first)?;
        linkat(&from, old, parent, name, AtFlags::empty()).map_err(Error::io("link to", first))
    }

    /// The directory that `path` lies in, and its name there. No part of the way may be a link or a mount.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Error> {
        let name = path.file_name().unwrap_or_default();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((self.directory(parent)?, name))
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd, Error> {
        let opened = match self.view.place(path) {
            Place::Own(point) => open_below(&self.root, point, true).and_then(|mount| {
                let rest = path.strip_prefix(point).unwrap_or(Path::new(""));
                open_below(&mount, rest, false)
            }),
            _ => open_below(&self.root, path, false),
        };
        opened.map_err(|e| match e {
            Errno::LOOP | Errno::XDEV | Errno::NOTDIR => Error::OtherPath { path: path.into() },
            e => Error::io("open", path)(e),
        })
    }

    /// Whether a path is not to be touched: it lies in what is not the container's, or is itself mounted on. Removing such
    /// a place here would take the mount away there.
    fn is_foreign(&self, path: &Path) -> bool {
        match self.view.place(path) {
            Place::Root => false,
            Place::Own(point) => point == path,
            Place::Elsewhere => true,
        }
    }

    /// Takes away what a deletion in the archive names.
    fn remove(&mut self, path: &Path) -> Result<(), Error> {
        match self.parent(path) {
            Ok((parent, name)) => self.clear(parent.as_fd(), name, path),
            // What it lay in is gone as well.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes whatever `name` is, and all below it, but for what is not to be touched.
    fn clear(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
        let removed = match unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                self.empty(path)?;
                self.times.remove(path);
                unlinkat(parent, name, AtFlags::REMOVEDIR)
            }
            removed => removed,
        };
        is_gone(removed).map_err(Error::io("remove", path))
    }

    /// Removes all below a directory, but for what is not to be touched.
    fn empty(&mut self, path: &Path) -> Result<(), Error> {
        let mut directories = Vec::new();
        walk(&self.directory(path)?, path, &mut |entry| {
            if self.is_foreign(entry.path) {
                return Ok(false);
            }
            match unlinkat(entry.parent, entry.name, AtFlags::empty()) {
                Err(Errno::ISDIR) => directories.push(entry.path.to_path_buf()),
                removed => is_gone(removed).map_err(Error::io("remove", entry.path))?,
            }
            Ok(true)
        })?;
        // Those further in come later, and are removed first.
        for path in directories.iter().rev() {
            let (parent, name) = self.parent(path)?;
            is_gone(unlinkat(parent, name, AtFlags::REMOVEDIR)).map_err(Error::io("remove", path))?;
            self.times.remove(path);
        }
        Ok(())
    }
}

/// Whether a removal was one. A directory stays that has a mount somewhere below.
fn is_gone(removed: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match removed {
        Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
        removed => removed,
    }
}
