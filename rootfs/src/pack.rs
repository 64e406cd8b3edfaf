//! Packs what is new since the last time: in the upper directory, and in the container's own file systems in memory and volumes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lz4_flex::frame::FrameEncoder;
use rustix::fs::{fstatfs, lgetxattr, readlinkat, FileType, Mode, OFlags};
use tar::{Builder, EntryType, Header};

use crate::extents::Extents;
use crate::mapped::Mapped;
use crate::names::{self, Mark};
use crate::view::{is_memory, open_below, open_root, Kind, Place, View};
use crate::walk::{attribute_names, through, walk, Entry};
use crate::{Error, Summary, Volumes};

/// More than the length and name of a record take.
const RECORD_FRAME: usize = 32;

/// The overlay's own attributes.
const OVERLAY: &str = "trusted.overlay.";

/// Two changes so close together may leave the same time; a clock that is set meanwhile is allowed for.
const TICK: Duration = Duration::from_secs(1);

/// What tells an entry from a later one of the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    kind: FileType,
    inode: u64,
    changed: (i64, i64),
    size: i64,
}

impl Stamp {
    fn of(entry: &Entry<'_>) -> Self {
        Self {
            kind: entry.kind(),
            inode: entry.stat.st_ino,
            changed: (entry.stat.st_ctime, i64::try_from(entry.stat.st_ctime_nsec).unwrap_or_default()),
            size: entry.stat.st_size,
        }
    }
}

/// What a round has packed.
#[derive(Debug, Clone, Copy)]
struct Packed {
    stamp: Stamp,
    /// A change after it was read shows in the stamp. Where not, it is packed again by the next round.
    settled: bool,
}

/// Packs the changes of one root file system, round by round.
#[derive(Debug)]
pub struct Packer {
    view: View,
    upper: OwnedFd,
    /// The container's own root, where its file systems in memory and its volumes are.
    root: OwnedFd,
    /// Whether the upper directory is in memory.
    in_memory: bool,
    /// There was a round before.
    begun: bool,
    /// What the rounds before have packed.
    packed: BTreeMap<PathBuf, Packed>,
}

impl Packer {
    /// For the root file system of host process `pid`, and these of its volumes.
    ///
    /// # Errors
    /// When it is no overlay, or has no volume where one is named.
    pub fn of(pid: i32, volumes: &Volumes) -> Result<Self, Error> {
        let view = View::of(pid, volumes)?;
        let path = view.upper()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let in_memory = is_in_memory(&upper).map_err(Error::io("look at", path))?;
        Ok(Self::new(view, upper, open_root(pid)?, in_memory))
    }

    pub(crate) fn new(view: View, upper: OwnedFd, root: OwnedFd, in_memory: bool) -> Self {
        Self { view, upper, root, in_memory, begun: false, packed: BTreeMap::new() }
    }

    /// Writes an archive of all that changed since the last round; in the first one, since the container was made. What
    /// changes while it is read is packed again by the next round, and so is what may have changed without a trace:
    /// files in memory, files that one of the application's `processes` maps shared and writable, and what had changed
    /// right before it was read. Packed while all processes are frozen, nothing is missing.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn round(&mut self, out: impl Write, processes: &BTreeSet<i32>) -> Result<Summary, Error> {
        let begun = SystemTime::now();
        let mapped = Mapped::by(processes)?;
        let mut encoder = FrameEncoder::new(out);
        let mut round = Round {
            archive: Builder::new(&mut encoder),
            packer: self,
            begun,
            in_memory: false,
            mapped,
            now: BTreeMap::new(),
            links: HashMap::new(),
            summary: Summary::default(),
        };
        round.pack_all()?;
        let (now, summary) = (std::mem::take(&mut round.now), round.summary);
        round.say(Path::new("end"), Mark::End)?;
        let finished = round.archive.finish();
        drop(round);
        let path = Path::new("the archive");
        finished.map_err(Error::io("write", path))?;
        encoder.finish().map_err(|e| Error::io("write", path)(io::Error::from(e)))?;
        self.packed = now;
        self.begun = true;
        Ok(summary)
    }
}

/// One round.
struct Round<'a, W: Write> {
    archive: Builder<W>,
    packer: &'a Packer,
    begun: SystemTime,
    /// Whether what is being packed is mounted from memory.
    in_memory: bool,
    /// What was mapped when it began.
    mapped: Mapped,
    now: BTreeMap<PathBuf, Packed>,
    /// Where an inode with several names was packed first.
    links: HashMap<(u64, u64), PathBuf>,
    summary: Summary,
}

impl<W: Write> Round<'_, W> {
    fn pack_all(&mut self) -> Result<(), Error> {
        let packer = self.packer;
        if !packer.begun {
            self.say(Path::new("all"), Mark::Whole)?;
        }
        walk(&packer.upper, Path::new(""), &mut |entry| self.visit(entry, Place::Root))?;
        for (point, kind) in packer.view.own() {
            self.pack_mounted(point, kind)?;
        }
        self.forget_vanished()
    }

    /// What is mounted at `point`, itself and all below it. The first time it is announced, so that nothing else is there then.
    fn pack_mounted(&mut self, point: &Path, kind: Kind) -> Result<(), Error> {
        let directory = open_below(&self.packer.root, point, true).map_err(Error::io("open", point))?;
        if !self.packer.packed.contains_key(point) {
            self.mark(point, if kind == Kind::Volume { Mark::Volume } else { Mark::Memory })?;
        }
        self.in_memory =
            kind == Kind::Memory || is_in_memory(&directory).map_err(Error::io("look at", point))?;
        // The same directory may be mounted twice.
        self.links.clear();
        self.visit(&Entry::itself(directory.as_fd(), point)?, Place::Own(point))?;
        walk(&directory, point, &mut |entry| self.visit(entry, Place::Own(point)))
    }

    /// Packs one entry; says whether it is to be entered.
    fn visit(&mut self, entry: &Entry<'_>, place: Place<'_>) -> Result<bool, Error> {
        // Under another mount there is only the place that it was mounted on.
        if self.packer.view.place(entry.path) != place {
            return Ok(false);
        }
        let stamp = Stamp::of(entry);
        let before = self.packer.packed.get(entry.path);
        let traceless = self.changes_without_trace(entry, place);
        let settled = !traceless && self.is_old(&stamp);
        self.now.insert(entry.path.into(), Packed { stamp, settled });
        if !traceless && before.is_some_and(|before| before.settled && before.stamp == stamp) {
            return Ok(true);
        }
        let known = before.is_some_and(|before| before.stamp.inode == stamp.inode);
        match self.pack(entry, known) {
            // It went away, or became something else; the next round sees what it is.
            Err(Error::Io { source, .. }) if has_vanished(&source) => {
                self.now.remove(entry.path);
                Ok(false)
            }
            Err(e) => Err(e),
            Ok(()) => Ok(true),
        }
    }

    /// Whether it is a file whose times need not tell of a change. A file system in memory takes no note of what is
    /// written through a mapping; another one notes the first write, but none that follows until it has been to disk.
    fn changes_without_trace(&self, entry: &Entry<'_>, place: Place<'_>) -> bool {
        if entry.kind() != FileType::RegularFile {
            return false;
        }
        match place {
            Place::Own(_) => self.in_memory || self.mapped.holds_entry(entry),
            _ => self.packer.in_memory || self.mapped.holds(&self.packer.root, entry.path),
        }
    }

    /// Whether a change from now on will have another time than the last one.
    fn is_old(&self, stamp: &Stamp) -> bool {
        let begun = self.begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let limit = begun.saturating_sub(TICK);
        let limit = (i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), i64::from(limit.subsec_nanos()));
        stamp.changed < limit
    }

    fn pack(&mut self, entry: &Entry<'_>, known: bool) -> Result<(), Error> {
        if entry.is_whiteout() {
            return self.mark(entry.path, Mark::Gone);
        }
        match entry.kind() {
            FileType::Directory => self.directory(entry, known),
            FileType::RegularFile => self.file(entry),
            FileType::Symlink => self.symlink(entry),
            FileType::Fifo => self.plain(entry, EntryType::Fifo),
            // Whoever listens on it makes it anew.
            FileType::Socket => Ok(()),
            _ => {
                tracing::warn!(path = ?entry.path, "a device node does not travel");
                self.summary.skipped += 1;
                Ok(())
            }
        }
    }

    /// A directory that hides the image's is said to be empty, once: a later round may bring it without its content.
    fn directory(&mut self, entry: &Entry<'_>, known: bool) -> Result<(), Error> {
        self.plain(entry, EntryType::Directory)?;
        let path = through(entry.parent, entry.name);
        let mut value = [0; 1];
        let opaque = lgetxattr(&path, format!("{OVERLAY}opaque"), &mut value).is_ok_and(|_| value == *b"y");
        if opaque && !known {
            self.mark(entry.path, Mark::Emptied)?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        if entry.stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(entry.stat.st_dev, entry.stat.st_ino)) {
                let mut header = header(entry, EntryType::Link);
                self.summary.entries += 1;
                return self
                    .archive
                    .append_link(&mut header, entry.path, first)
                    .map_err(Error::io("pack", entry.path));
            }
        }
        let file = entry.open_file().map_err(Error::io("open", entry.path))?;
        let size = u64::try_from(entry.stat.st_size).unwrap_or_default();
        let extents = Extents::of(&file, size).map_err(Error::io("read", entry.path))?;
        self.attributes(entry, extents.record().map(|record| (names::SPARSE, record)))?;
        let mut header = header(entry, EntryType::Regular);
        header.set_size(extents.length());
        let content = extents.reader(&file);
        self.archive.append_data(&mut header, entry.path, content).map_err(Error::io("pack", entry.path))?;
        if entry.stat.st_nlink > 1 {
            self.links.insert((entry.stat.st_dev, entry.stat.st_ino), entry.path.into());
        }
        self.summary.entries += 1;
        self.summary.bytes += extents.length();
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let target =
            readlinkat(entry.parent, entry.name, Vec::new()).map_err(Error::io("read", entry.path))?;
        self.attributes(entry, Some((names::TARGET, hex::encode(target.as_bytes()))))?;
        let mut header = header(entry, EntryType::Symlink);
        let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
        self.summary.entries += 1;
        self.archive.append_link(&mut header, entry.path, target).map_err(Error::io("pack", entry.path))
    }

    fn plain(&mut self, entry: &Entry<'_>, kind: EntryType) -> Result<(), Error> {
        self.attributes(entry, None)?;
        let mut header = header(entry, kind);
        self.summary.entries += 1;
        self.archive.append_data(&mut header, entry.path, io::empty()).map_err(Error::io("pack", entry.path))
    }

    /// An entry that is no file, and one of what is packed.
    fn mark(&mut self, path: &Path, mark: Mark) -> Result<(), Error> {
        self.summary.entries += 1;
        self.say(path, mark)
    }

    /// An entry about the archive itself.
    fn say(&mut self, path: &Path, mark: Mark) -> Result<(), Error> {
        let failed = || Error::io("pack", path);
        let records = [(names::MARK, mark.text().as_bytes())];
        self.archive.append_pax_extensions(records).map_err(failed())?;
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o600);
        self.archive.append_data(&mut header, path, io::empty()).map_err(failed())
    }

    /// Extended attributes, the time in full, and a record of its kind's own go ahead of the entry that they are of.
    fn attributes(&mut self, entry: &Entry<'_>, own: Option<(&'static str, String)>) -> Result<(), Error> {
        let path = through(entry.parent, entry.name);
        let failed = |e: io::Error| Error::io("read the attributes of", entry.path)(e);
        let mut records = vec![(names::TIME, time(entry))];
        records.extend(own);
        for name in attribute_names(&path).map_err(failed)? {
            if let Some(own) = name.strip_prefix(OVERLAY) {
                if own == "redirect" || own == "metacopy" {
                    return Err(Error::ByReference { path: entry.path.into(), attribute: name });
                }
                continue;
            }
            let mut value = vec![0; 65536];
            let length = lgetxattr(&path, &name, &mut value).map_err(|e| failed(e.into()))?;
            value.truncate(length);
            records.push((names::ATTRIBUTE, format!("{}:{}", hex::encode(&name), hex::encode(value))));
        }
        if records.iter().map(|(_, value)| value.len() + RECORD_FRAME).sum::<usize>() > names::RECORDS_LIMIT {
            return Err(Error::TooManyAttributes { path: entry.path.into() });
        }
        let records = records.iter().map(|(name, value)| (*name, value.as_bytes()));
        self.archive.append_pax_extensions(records).map_err(Error::io("pack", entry.path))
    }

    /// What an earlier round has packed and is no more. With a directory goes everything in it, whatever took its place.
    fn forget_vanished(&mut self) -> Result<(), Error> {
        let before = &self.packer.packed;
        for path in before.keys().filter(|path| !path.as_os_str().is_empty()) {
            let parent = path.parent().filter(|parent| before.contains_key(*parent));
            let parent_stays = parent.is_none_or(|parent| self.is_directory(parent));
            if !self.now.contains_key(path) && parent_stays {
                self.mark(path, Mark::Gone)?;
            }
        }
        Ok(())
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.now.get(path).is_some_and(|now| now.stamp.kind == FileType::Directory)
    }
}

fn is_in_memory(directory: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(is_memory(&fstatfs(directory)?))
}

fn header(entry: &Entry<'_>, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(entry.stat.st_mode & 0o7777);
    header.set_uid(entry.stat.st_uid.into());
    header.set_gid(entry.stat.st_gid.into());
    header.set_mtime(u64::try_from(entry.stat.st_mtime).unwrap_or_default());
    header.set_size(0);
    header
}

fn time(entry: &Entry<'_>) -> String {
    format!("{}.{:09}", entry.stat.st_mtime, entry.stat.st_mtime_nsec)
}

fn has_vanished(error: &io::Error) -> bool {
    // ELOOP: a symbolic link took its place; ENXIO: a socket.
    matches!(error.raw_os_error(), Some(code) if [2, 20, 40, 6, 61].contains(&code))
}
