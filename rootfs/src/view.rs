//! A process's root: where its changes are written, and what is mounted over it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{openat2, Mode, OFlags, ResolveFlags};

use crate::Error;

/// Mounts in memory that hold no files of an application's: what is there, the runtime has made.
const THE_RUNTIMES: [&str; 3] = ["dev", "proc", "sys"];
/// Clients mount this one on the host too, for the containers that share it.
const SHARED_MEMORY: &str = "dev/shm";

/// Where a path lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// In the root file system itself.
    Root,
    /// In a file system in memory that is the container's own, mounted there.
    Memory(&'a Path),
    /// In one that is somebody else's, or that has no files.
    Elsewhere,
}

/// What the kernel tells of a process's mounts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// What is mounted at `/`.
    kind: String,
    /// The overlay's upper directory, on the host.
    upper: Option<PathBuf>,
    /// The mount points but for `/`, relative to it, and whether the container's own memory is mounted there.
    mounts: BTreeMap<PathBuf, bool>,
}

/// One line of a `mountinfo`.
struct Mount<'a> {
    device: &'a [u8],
    /// What of the file system is mounted.
    part: &'a [u8],
    point: PathBuf,
    writable: bool,
    kind: &'a [u8],
    options: &'a [u8],
}

impl View {
    /// That of host process `pid`.
    pub(crate) fn of(pid: i32) -> Result<Self, Error> {
        let read = |path: String| std::fs::read(&path).map_err(Error::io("read", Path::new(&path)));
        let theirs = read(format!("/proc/{pid}/mountinfo"))?;
        Ok(Self::parse(&theirs, &read("/proc/self/mountinfo".into())?))
    }

    /// From the `mountinfo` of a process in the container, and that of one on the host.
    pub(crate) fn parse(theirs: &[u8], hosts: &[u8]) -> Self {
        let hosts: Vec<Mount<'_>> = mounts(hosts).collect();
        let mut view = Self { kind: "unknown".into(), upper: None, mounts: BTreeMap::new() };
        // A later line for the same place is mounted over the earlier one.
        for mount in mounts(theirs) {
            if mount.point.as_os_str().is_empty() {
                view.kind = String::from_utf8_lossy(mount.kind).into();
                view.upper = mount.upper();
            } else {
                let own = mount.is_own_memory(&hosts);
                view.mounts.insert(mount.point, own);
            }
        }
        view
    }

    /// Where changes are written.
    pub(crate) fn upper(&self) -> Result<&Path, Error> {
        let upper = self.upper.as_deref().filter(|path| path.is_absolute());
        upper.ok_or_else(|| Error::NoOverlay { kind: self.kind.clone() })
    }

    /// Where `path`, relative to the root, lies.
    pub(crate) fn place(&self, path: &Path) -> Place<'_> {
        match path.ancestors().find_map(|part| self.mounts.get_key_value(part)) {
            None => Place::Root,
            Some((point, true)) => Place::Memory(point),
            Some(_) => Place::Elsewhere,
        }
    }

    /// The container's own file systems in memory.
    pub(crate) fn memory(&self) -> BTreeSet<&Path> {
        self.mounts.iter().filter(|(_, own)| **own).map(|(point, _)| point.as_path()).collect()
    }
}

impl Mount<'_> {
    fn upper(&self) -> Option<PathBuf> {
        let mut options = self.options.split(|&byte| byte == b',');
        options.find_map(|option| option.strip_prefix(b"upperdir=")).map(unescape)
    }

    /// A file system of the host's that is bound into the container is not the container's.
    fn is_own_memory(&self, hosts: &[Mount<'_>]) -> bool {
        let at_host: Vec<&Path> = hosts
            .iter()
            .filter(|mount| mount.device == self.device)
            .map(|mount| mount.point.as_path())
            .collect();
        let shared = Path::new(SHARED_MEMORY);
        let own = at_host.is_empty() || (self.point == shared && !at_host.contains(&shared));
        let runtimes = THE_RUNTIMES.iter().any(|path| self.point.starts_with(path)) && self.point != shared;
        self.kind == b"tmpfs" && self.part == b"/" && self.writable && own && !runtimes
    }
}

fn mounts(text: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let point = unescape(fields.get(4)?);
        Some(Mount {
            device: fields.get(2)?,
            part: fields.get(3)?,
            point: point.strip_prefix("/").map(Path::to_path_buf).unwrap_or(point),
            writable: fields.get(5)?.split(|&byte| byte == b',').any(|option| option == b"rw"),
            kind: fields.get(dash + 1)?,
            options: fields.get(dash + 3).copied().unwrap_or_default(),
        })
    })
}

/// Octal escapes stand for blanks and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                bytes.push(value);
                rest = &after[3..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The root of host process `pid`.
pub(crate) fn open_root(pid: i32) -> Result<OwnedFd, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/root"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open", &path))
}

/// A directory below `root`, reached without a symbolic link; and without a mount, unless `across`.
pub(crate) fn open_below(root: &OwnedFd, path: &Path, across: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if !across {
        how |= ResolveFlags::NO_XDEV;
    }
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(root, path, flags, Mode::empty(), how)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"\
1 0 8:1 / / rw - ext4 /dev/sda rw\n\
2 1 0:20 / /run rw - tmpfs tmpfs rw\n\
3 1 0:21 / /dev/shm rw - tmpfs tmpfs rw\n\
4 1 0:60 / /var/lib/client/shm rw - tmpfs shm rw\n";

    const CONTAINER: &[u8] = b"\
100 90 0:50 / / rw,relatime master:7 - overlay overlay rw,lowerdir=/a:/b,upperdir=/var/lib/x\\040y/fs,workdir=/w\n\
101 100 0:51 / /proc rw - proc proc rw\n\
102 100 8:1 /h /etc/hosts rw - ext4 /dev/sda rw\n\
103 100 0:61 / /dev rw - tmpfs tmpfs rw\n\
104 103 0:60 / /dev/shm rw - tmpfs shm rw\n\
105 100 0:62 / /cache rw - tmpfs tmpfs rw\n\
106 100 0:63 / /masked ro - tmpfs tmpfs ro\n\
107 100 0:20 / /hostrun rw - tmpfs tmpfs rw\n\
108 100 0:20 /sub /part rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_upper_directory_and_the_mounts_are_found() {
        let view = View::parse(CONTAINER, HOST);
        assert_eq!(view.upper().unwrap(), Path::new("/var/lib/x y/fs"));
        assert_eq!(view.place(Path::new("etc/passwd")), Place::Root);
        assert_eq!(view.place(Path::new("cache/a/b")), Place::Memory(Path::new("cache")));
        for path in ["etc/hosts", "proc/1/status", "dev/null", "masked/x", "hostrun/x", "part/x"] {
            assert_eq!(view.place(Path::new(path)), Place::Elsewhere, "{path}");
        }
        assert_eq!(view.memory(), BTreeSet::from([Path::new("cache"), Path::new("dev/shm")]));
    }

    #[test]
    fn the_hosts_shared_memory_is_the_hosts() {
        let line = b"1 0 0:21 / /dev/shm rw - tmpfs tmpfs rw\n";
        assert!(View::parse(line, HOST).memory().is_empty());
    }

    #[test]
    fn without_an_overlay_there_is_no_telling() {
        let view = View::parse(b"1 0 8:1 / / rw - ext4 /dev/sda rw\n", b"");
        assert!(view.upper().unwrap_err().to_string().contains("ext4"));
    }
}
