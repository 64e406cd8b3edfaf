//! Puts an archive's files into a container's root, as its processes see it.

mod mirror;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lz4_flex::frame::FrameDecoder;
use rustix::fs::{
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, lsetxattr, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat, utimensat, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use tar::{Archive, EntryType};

use self::mirror::Brought;
use crate::extents::Extents;
use crate::members::{Member, Members};
use crate::names::{self, Mark};
use crate::view::{open_below, open_root, Kind, Place, View};
use crate::walk::{through, walk};
use crate::{Error, Summary, Volumes};

/// Files are written in blocks; one that is all zero becomes a hole.
const BLOCK: usize = 64 * 1024;

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

/// What an entry says besides its content.
struct Attributes {
    mode: Mode,
    owner: (Uid, Gid),
    times: Timestamps,
    extended: Vec<(Vec<u8>, Vec<u8>)>,
    target: Option<Vec<u8>>,
    /// Of a regular file.
    extents: Extents,
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
        dress(directory.as_fd(), &attributes).map_err(Error::io("put back", &member.path))?;
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

fn attributes(member: &Member<'_, impl Read>) -> Result<Attributes, Error> {
    let path = member.path.as_path();
    let damaged = |problem| Error::Damaged { path: path.into(), problem };
    let number = |value: io::Result<u64>, problem| {
        value.ok().and_then(|value| u32::try_from(value).ok()).ok_or_else(|| damaged(problem))
    };
    let header = member.entry.header();
    let mode = header.mode().map_err(|_| damaged("has no mode"))? & 0o7777;
    let owner = (number(header.uid(), "has no owner")?, number(header.gid(), "has no group")?);
    let mut found = Attributes {
        mode: Mode::from_raw_mode(mode),
        owner: (Uid::from_raw(owner.0), Gid::from_raw(owner.1)),
        times: times(&header.mtime().unwrap_or_default().to_string()),
        extended: Vec::new(),
        target: None,
        extents: Extents::whole(member.entry.size()),
    };
    let bytes = |text: &str| hex::decode(text).map_err(|_| damaged("has an attribute that is no text"));
    member.records.read(path, |name, value| {
        match name {
            names::TIME => found.times = times(value),
            names::TARGET => found.target = Some(bytes(value)?),
            names::SPARSE => {
                let extents = Extents::read(value, member.entry.size());
                found.extents = extents.ok_or_else(|| damaged("has holes that make no sense"))?;
            }
            names::ATTRIBUTE => {
                let (name, value) =
                    value.split_once(':').ok_or_else(|| damaged("has an attribute without value"))?;
                found.extended.push((bytes(name)?, bytes(value)?));
            }
            _ => {}
        }
        Ok(())
    })?;
    // The overlay's own are not an archive's to set.
    found.extended.retain(|(name, _)| !name.starts_with(b"trusted."));
    Ok(found)
}

/// `SECONDS.FRACTION`; the time of the last access is that of the last change.
fn times(text: &str) -> Timestamps {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanoseconds = format!("{fraction:0<9}").get(..9).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let time = Timespec { tv_sec: seconds.parse().unwrap_or(0), tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

/// Into the directory that is there already, if one is.
fn directory(parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let there =
        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match there {
        Ok(FileType::Directory) => {}
        Ok(_) => {
            unlinkat(parent, name, AtFlags::empty())?;
            mkdirat(parent, name, Mode::RWXU)?;
        }
        Err(Errno::NOENT) => mkdirat(parent, name, Mode::RWXU)?,
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    dress(openat(parent, name, flags, Mode::empty())?.as_fd(), attributes)
}

fn file(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    attributes: &Attributes,
    content: &mut impl Read,
) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    let mut block = vec![0; BLOCK];
    for (offset, length) in &attributes.extents.data {
        file.seek(SeekFrom::Start(*offset))?;
        write_piece(&mut file, &mut content.by_ref().take(*length), &mut block)?;
    }
    file.set_len(attributes.extents.size)?;
    dress(file.as_fd(), attributes)?;
    futimens(&file, &attributes.times)?;
    Ok(attributes.extents.length())
}

/// Writes all of it but for blocks that are zero.
fn write_piece(file: &mut File, piece: &mut io::Take<&mut impl Read>, block: &mut [u8]) -> io::Result<()> {
    while piece.limit() > 0 {
        let count = usize::try_from(piece.limit()).unwrap_or(usize::MAX).min(block.len());
        let block = &mut block[..count];
        piece.read_exact(block)?;
        if block.iter().all(|&byte| byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(count).unwrap_or(0)))?;
        } else {
            file.write_all(block)?;
        }
    }
    Ok(())
}

fn symlink(parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let target = attributes.target.as_deref().ok_or(io::ErrorKind::InvalidData)?;
    symlinkat(OsStr::from_bytes(target), parent, name)?;
    let (user, group) = attributes.owner;
    chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    for (key, value) in &attributes.extended {
        lsetxattr(through(parent, name), OsStr::from_bytes(key), value, XattrFlags::empty())?;
    }
    Ok(utimensat(parent, name, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn fifo(parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Open for both ends, so that nobody is waited for.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = openat(parent, name, flags, Mode::empty())?;
    dress(open.as_fd(), attributes)?;
    Ok(futimens(&open, &attributes.times)?)
}

/// The owner first: the kernel takes set-id bits and capabilities from what changes hands.
fn dress(file: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    fchown(file, Some(attributes.owner.0), Some(attributes.owner.1))?;
    fchmod(file, attributes.mode)?;
    for (name, value) in &attributes.extended {
        fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    Ok(())
}
