//! What of a container's files travels and what does not, told without reading their content.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{fstat, fstatfs, openat2, readlinkat, FileType, Mode, OFlags, ResolveFlags};

use crate::layers::Layers;
use crate::view::{open_below, open_root, Kind, Place, View};
use crate::walk::walk;
use crate::{Error, Volumes};

/// An image with more files than this is not compared.
const MOST_FILES: usize = 500_000;
/// Nor one that takes longer to look through.
const LONGEST: Duration = Duration::from_secs(20);

/// What clients put over an image for one container.
const THE_CLIENTS: [&str; 6] =
    [".dockerenv", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "run/.containerenv"];
/// Nothing of an image's own is to be seen here.
const THE_RUNTIMES: [&str; 3] = ["dev", "proc", "sys"];

/// A container's root, looked at.
#[derive(Debug)]
pub struct Survey {
    view: View,
    upper: OwnedFd,
    root: OwnedFd,
}

/// One mount of a container's, but for its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where, in the container.
    pub at: PathBuf,
    /// What it is to a container that moves.
    pub kind: Content,
    /// The kind of file system.
    pub filesystem: String,
    /// Whether it is mounted for writing.
    pub writable: bool,
    /// Which directory of the host it is, as long as that is up: file system and inode.
    pub identity: Option<(u64, u64)>,
}

/// What a mount is to a container that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The container's own files in memory: they travel.
    Memory,
    /// A volume that travels.
    Volume,
    /// A volume of the client's that does not.
    Left,
    /// What the host has: a directory or file of its own.
    Bind,
    /// What every container gets: kernel file systems, and the files that its client makes for it.
    Runtime,
}

/// What travels from one file system, or would go into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Where it is mounted in the container.
    pub at: PathBuf,
    /// Which file system it is, as long as the host is up.
    pub device: u64,
    /// Whether it is in memory.
    pub in_memory: bool,
    /// Bytes that are there and travel.
    pub used: u64,
    /// Bytes that are free there.
    pub free: u64,
}

impl Survey {
    /// That of host process `pid`, of whose volumes these travel.
    ///
    /// # Errors
    /// As [`crate::Packer::of`].
    pub fn of(pid: i32, volumes: &Volumes) -> Result<Self, Error> {
        let view = View::of(pid, volumes)?;
        let path = view.upper()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        Ok(Self { upper, root: open_root(pid)?, view })
    }

    /// Whether what is at `path` of the container travels; what cannot be looked at does not.
    #[must_use]
    pub fn travels(&self, path: &Path) -> bool {
        let Ok(path) = path.strip_prefix("/") else { return false };
        match self.view.place(path) {
            Place::Own(_) => true,
            Place::Elsewhere => false,
            Place::Root => {
                let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                openat2(&self.upper, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how).is_ok()
            }
        }
    }

    /// Where what is at `path` of the container is mounted; nothing when it is in the root file system.
    #[must_use]
    pub fn mount_of(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix("/").unwrap_or(path);
        path.ancestors()
            .find(|part| self.view.mounted(part).is_some())
            .map(|point| Path::new("/").join(point))
    }

    /// All mounts but the root.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mounted> {
        self.view.mounts().map(|(point, mount)| self.describe(point, mount)).collect()
    }

    fn describe(&self, point: &Path, mount: &crate::view::Mounted) -> Mounted {
        let kind = match mount.kind {
            Kind::Memory => Content::Memory,
            Kind::Volume => Content::Volume,
            Kind::Other if is_runtimes(point, &mount.filesystem) => Content::Runtime,
            Kind::Other if mount.is_clients => Content::Left,
            Kind::Other => Content::Bind,
        };
        let open = open_below(&self.root, point, true).and_then(fstat);
        Mounted {
            at: Path::new("/").join(point),
            kind,
            filesystem: mount.filesystem.clone(),
            writable: mount.writable,
            identity: open.ok().map(|stat| (stat.st_dev, stat.st_ino)),
        }
    }

    /// How much travels, and how much room there is, for each file system that travels.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub fn rooms(&self) -> Result<Vec<Room>, Error> {
        let mut rooms = vec![self.room(&self.upper, Path::new(""), Place::Root)?];
        for (point, _) in self.view.own() {
            let directory = open_below(&self.root, point, true).map_err(Error::io("open", point))?;
            rooms.push(self.room(&directory, point, Place::Own(point))?);
        }
        Ok(rooms)
    }

    fn room(&self, directory: &OwnedFd, point: &Path, place: Place<'_>) -> Result<Room, Error> {
        let failed = |e| Error::io("look at", point)(e);
        let (stat, status) = (fstat(directory).map_err(failed)?, fstatfs(directory).map_err(failed)?);
        let mut used = 0;
        walk(directory, point, &mut |entry| {
            let travels = self.view.place(entry.path) == place;
            if travels {
                used += u64::try_from(entry.stat.st_blocks).unwrap_or(0) * 512;
            }
            Ok(travels)
        })?;
        let block = u64::try_from(status.f_bsize).unwrap_or(0);
        Ok(Room {
            at: Path::new("/").join(point),
            device: stat.st_dev,
            in_memory: crate::view::is_memory(&status),
            used,
            free: block.saturating_mul(status.f_bavail),
        })
    }

    /// A checksum of each top directory of the image: names, kinds, modes, owners, sizes and link targets of what is in it, not
    /// the content; nothing when the image is too large for that.
    ///
    /// # Errors
    /// When its layers cannot be looked at.
    pub fn image(&self) -> Result<Option<BTreeMap<String, String>>, Error> {
        fingerprint(&Layers::of(&self.view)?)
    }
}

/// Whether clients put this file over an image, or keep what lies below it.
pub(crate) fn is_clients_own(path: &Path) -> bool {
    THE_CLIENTS.iter().chain(&THE_RUNTIMES).any(|own| path == Path::new(own))
}

fn is_runtimes(point: &Path, filesystem: &str) -> bool {
    const KERNELS: [&str; 8] =
        ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "devtmpfs", "securityfs"];
    let secrets = ["run/secrets", "var/run/secrets"].iter().any(|path| point.starts_with(path));
    KERNELS.contains(&filesystem)
        || secrets
        || THE_CLIENTS.iter().any(|path| point == Path::new(path))
        || THE_RUNTIMES.iter().any(|path| point.starts_with(path))
}

pub(crate) fn fingerprint(layers: &Layers) -> Result<Option<BTreeMap<String, String>>, Error> {
    let (mut sums, mut files, begun) = (BTreeMap::<String, blake3::Hasher>::new(), 0, Instant::now());
    layers.walk(Path::new(""), &mut |path, found| {
        let skip = |list: &[&str]| list.iter().any(|skipped| path == Path::new(skipped));
        if files > MOST_FILES || skip(&THE_RUNTIMES) {
            return Ok(false);
        }
        // Clients make directories to mount on, and files.
        if found.kind() == FileType::Directory || skip(&THE_CLIENTS) {
            return Ok(true);
        }
        files = if begun.elapsed() > LONGEST { usize::MAX } else { files + 1 };
        let top = path.iter().next().unwrap_or_default().to_string_lossy().into_owned();
        let stat = &found.stat;
        let mut line = path.as_os_str().as_bytes().to_vec();
        let size = if found.kind() == FileType::RegularFile { stat.st_size } else { 0 };
        line.extend(format!("\0{:o} {} {} {size} ", stat.st_mode, stat.st_uid, stat.st_gid).into_bytes());
        if found.kind() == FileType::Symlink {
            let name = path.file_name().unwrap_or_default();
            let target = readlinkat(&found.parent, name, Vec::new()).map_err(Error::io("read", path))?;
            line.extend(target.as_bytes());
        }
        line.push(0);
        sums.entry(top).or_default().update(&line);
        Ok(true)
    })?;
    let text = |sum: blake3::Hasher| sum.finalize().to_hex()[..32].to_owned();
    Ok((files <= MOST_FILES).then(|| sums.into_iter().map(|(top, sum)| (top, text(sum))).collect()))
}
