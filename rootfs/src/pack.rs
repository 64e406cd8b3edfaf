//! Packs what is new since the last time: in the upper directory, and in the container's own file systems in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lz4_flex::frame::FrameEncoder;
use rustix::fs::{lgetxattr, llistxattr, readlinkat, FileType, Mode, OFlags};
use tar::{Builder, EntryType, Header};

use crate::view::{open_below, open_root, Place, View};
use crate::walk::{through, walk, Entry};
use crate::{names, Error, Summary};

/// The overlay's own attributes.
const OVERLAY: &str = "trusted.overlay.";

/// What tells an entry from a later one of the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    size: i64,
}

/// Packs the changes of one root file system, round by round.
#[derive(Debug)]
pub struct Packer {
    view: View,
    upper: OwnedFd,
    /// The container's own root, where its file systems in memory are.
    root: OwnedFd,
    /// What the rounds before have packed.
    packed: BTreeMap<PathBuf, Stamp>,
}

impl Packer {
    /// For the root file system of host process `pid`.
    ///
    /// # Errors
    /// When it is no overlay.
    pub fn of(pid: i32) -> Result<Self, Error> {
        let view = View::of(pid)?;
        let path = view.upper()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        Ok(Self::new(view, upper, open_root(pid)?))
    }

    pub(crate) fn new(view: View, upper: OwnedFd, root: OwnedFd) -> Self {
        Self { view, upper, root, packed: BTreeMap::new() }
    }

    /// Writes an archive of all that changed since the last round; in the first one, since the container was made. What
    /// changes while it is read is packed again by the next round.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn round(&mut self, out: impl Write) -> Result<Summary, Error> {
        let mut encoder = FrameEncoder::new(out);
        let mut round = Round {
            archive: Builder::new(&mut encoder),
            view: &self.view,
            before: &self.packed,
            now: BTreeMap::new(),
            links: HashMap::new(),
            summary: Summary::default(),
        };
        let upper =
            open_below(&self.upper, Path::new(""), false).map_err(Error::io("open", Path::new("/")))?;
        walk(upper, Path::new(""), &mut |entry| round.visit(entry, Place::Root))?;
        for point in self.view.memory() {
            let directory = open_below(&self.root, point, true).map_err(Error::io("open", point))?;
            walk(directory, point, &mut |entry| round.visit(entry, Place::Memory(point)))?;
        }
        round.forget_vanished()?;
        let (now, summary) = (std::mem::take(&mut round.now), round.summary);
        round.empty(Path::new(names::END))?;
        let finished = round.archive.finish();
        drop(round);
        let path = Path::new("the archive");
        finished.map_err(Error::io("write", path))?;
        encoder.finish().map_err(|e| Error::io("write", path)(io::Error::from(e)))?;
        self.packed = now;
        Ok(summary)
    }
}

/// One round.
struct Round<'a, W: Write> {
    archive: Builder<W>,
    view: &'a View,
    before: &'a BTreeMap<PathBuf, Stamp>,
    now: BTreeMap<PathBuf, Stamp>,
    /// Where an inode with several names was packed first.
    links: HashMap<(u64, u64), PathBuf>,
    summary: Summary,
}

impl<W: Write> Round<'_, W> {
    /// Packs one entry; says whether it is to be entered.
    fn visit(&mut self, entry: &Entry<'_>, place: Place<'_>) -> Result<bool, Error> {
        // Under another mount there is only the place that it was mounted on.
        if self.view.place(entry.path) != place {
            return Ok(false);
        }
        let stamp = Stamp {
            inode: entry.stat.st_ino,
            changed: (entry.stat.st_ctime, i64::try_from(entry.stat.st_ctime_nsec).unwrap_or_default()),
            size: entry.stat.st_size,
        };
        self.now.insert(entry.path.into(), stamp);
        let before = self.before.get(entry.path);
        if before == Some(&stamp) {
            return Ok(true);
        }
        let known = before.is_some_and(|before| before.inode == stamp.inode);
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

    fn pack(&mut self, entry: &Entry<'_>, known: bool) -> Result<(), Error> {
        if entry.is_whiteout() {
            return self.empty(&names::gone(entry.path));
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
            self.empty(&names::emptied(entry.path))?;
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
        let file = entry.open(OFlags::RDONLY).map_err(Error::io("open", entry.path))?;
        self.attributes(entry, None)?;
        let mut header = header(entry, EntryType::Regular);
        let size = u64::try_from(entry.stat.st_size).unwrap_or_default();
        header.set_size(size);
        // As long as it was: the archive would be damaged by a file that grows or shrinks meanwhile.
        let content = File::from(file).take(size).chain(io::repeat(0)).take(size);
        self.archive.append_data(&mut header, entry.path, content).map_err(Error::io("pack", entry.path))?;
        if entry.stat.st_nlink > 1 {
            self.links.insert((entry.stat.st_dev, entry.stat.st_ino), entry.path.into());
        }
        self.summary.entries += 1;
        self.summary.bytes += size;
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let target =
            readlinkat(entry.parent, entry.name, Vec::new()).map_err(Error::io("read", entry.path))?;
        self.attributes(entry, Some(target.as_bytes()))?;
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

    /// A whiteout.
    fn empty(&mut self, path: &Path) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o600);
        self.summary.entries += 1;
        self.archive.append_data(&mut header, path, io::empty()).map_err(Error::io("pack", path))
    }

    /// Extended attributes, and the time in full, go ahead of the entry that they are of.
    fn attributes(&mut self, entry: &Entry<'_>, target: Option<&[u8]>) -> Result<(), Error> {
        let path = through(entry.parent, entry.name);
        let failed = |e: io::Error| Error::io("read the attributes of", entry.path)(e);
        let mut records = vec![(names::TIME, time(entry))];
        records.extend(target.map(|target| (names::TARGET, hex::encode(target))));
        for name in list(&path).map_err(failed)? {
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
        let records = records.iter().map(|(name, value)| (*name, value.as_bytes()));
        self.archive.append_pax_extensions(records).map_err(Error::io("pack", entry.path))
    }

    /// What an earlier round has packed and is no more. With a directory goes everything in it.
    fn forget_vanished(&mut self) -> Result<(), Error> {
        let before = self.before;
        for path in before.keys().filter(|path| !path.as_os_str().is_empty()) {
            let parent = path.parent().filter(|parent| before.contains_key(*parent));
            let parent_stays = parent.is_none_or(|parent| self.now.contains_key(parent));
            if !self.now.contains_key(path) && parent_stays {
                self.empty(&names::gone(path))?;
            }
        }
        Ok(())
    }
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

/// The names of the extended attributes; none where the file system knows none.
fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut buffer = vec![0; 65536];
    match llistxattr(path, &mut buffer) {
        Ok(length) => Ok(buffer[..length]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()),
        Err(rustix::io::Errno::NOTSUP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

fn has_vanished(error: &io::Error) -> bool {
    // ELOOP: a symbolic link took its place; ENXIO: a socket.
    matches!(error.raw_os_error(), Some(code) if [2, 20, 40, 6, 61].contains(&code))
}
