//! A process's root: where its changes are written, and what is mounted over it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{openat2, Mode, OFlags, ResolveFlags, StatFs};

use crate::{volumes, Error, Volumes};

/// Mounts in memory that hold no files of an application's: what is there, the runtime has made.
const THE_RUNTIMES: [&str; 3] = ["dev", "proc", "sys"];
/// Clients mount this one on the host too, for the containers that share it.
const SHARED_MEMORY: &str = "dev/shm";

/// Where a path lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// In the root file system itself.
    Root,
    /// In what is the container's own and mounted there.
    Own(&'a Path),
    /// In what is somebody else's, or has no files.
    Elsewhere,
}

/// What is mounted somewhere below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The container's own file system in memory.
    Memory,
    /// A volume that travels.
    Volume,
    /// What is somebody else's, or has no files.
    Other,
}

/// What the kernel tells of a process's mounts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// What is mounted at `/`.
    kind: String,
    /// The overlay's upper directory, on the host.
    upper: Option<PathBuf>,
    /// The mount points but for `/`, relative to it.
    mounts: BTreeMap<PathBuf, Mounted>,
    /// The overlay's lower directories, as its options name them.
    lower: Vec<PathBuf>,
}

/// One mount below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) kind: Kind,
    pub(crate) filesystem: String,
    pub(crate) writable: bool,
    /// Whether a client keeps it as a volume.
    pub(crate) is_clients: bool,
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
    /// That of host process `pid`, of whose volumes these travel.
    pub(crate) fn of(pid: i32, volumes: &Volumes) -> Result<Self, Error> {
        let read = |path: String| std::fs::read(&path).map_err(Error::io("read", Path::new(&path)));
        let theirs = read(format!("/proc/{pid}/mountinfo"))?;
        let view = Self::parse(&theirs, &read("/proc/self/mountinfo".into())?, volumes);
        match volumes.named().find(|point| !view.mounts.contains_key(*point)) {
            Some(point) => Err(Error::NoVolume { path: point.into() }),
            None => Ok(view),
        }
    }

    /// From the `mountinfo` of a process in the container, and that of one on the host.
    pub(crate) fn parse(theirs: &[u8], hosts: &[u8], volumes: &Volumes) -> Self {
        let hosts: Vec<Mount<'_>> = mounts(hosts).collect();
        let mut view =
            Self { kind: "unknown".into(), upper: None, mounts: BTreeMap::new(), lower: Vec::new() };
        // A later line for the same place is mounted over the earlier one.
        for mount in mounts(theirs) {
            if mount.point.as_os_str().is_empty() {
                view.kind = String::from_utf8_lossy(mount.kind).into();
                view.upper = mount.upper();
                view.lower = mount.lower();
            } else {
                let mounted = mount.describe(&hosts, volumes);
                view.mounts.insert(mount.point, mounted);
            }
        }
        view
    }

    /// Where changes are written.
    pub(crate) fn upper(&self) -> Result<&Path, Error> {
        let upper = self.upper.as_deref().filter(|path| path.is_absolute());
        upper.ok_or_else(|| Error::NoOverlay { kind: self.kind.clone() })
    }

    /// The lower directories, the topmost first. Those that are not named in full are named relative to a directory that the
    /// upper one lies below.
    pub(crate) fn lower(&self) -> Result<Vec<PathBuf>, Error> {
        let upper = self.upper()?;
        let is_there = |base: &&Path| self.lower.iter().all(|path| base.join(path).is_dir());
        let base = upper.ancestors().find(is_there);
        match base {
            Some(base) if !self.lower.is_empty() => {
                Ok(self.lower.iter().map(|path| base.join(path)).collect())
            }
            _ => Err(Error::NoImage { lower: self.lower.iter().take(3).cloned().collect() }),
        }
    }

    /// Where `path`, relative to the root, lies.
    pub(crate) fn place(&self, path: &Path) -> Place<'_> {
        match path.ancestors().find_map(|part| self.mounts.get_key_value(part)) {
            None => Place::Root,
            Some((_, mount)) if mount.kind == Kind::Other => Place::Elsewhere,
            Some((point, _)) => Place::Own(point),
        }
    }

    /// What is mounted at `point`.
    pub(crate) fn mounted(&self, point: &Path) -> Option<Kind> {
        self.mounts.get(point).map(|mount| mount.kind)
    }

    /// All mounts but the root.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = (&Path, &Mounted)> {
        self.mounts.iter().map(|(point, mount)| (point.as_path(), mount))
    }

    /// Where the container's own file systems and volumes are mounted.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&Path, Kind)> {
        let own = self.mounts().filter(|(_, mount)| mount.kind != Kind::Other);
        own.map(|(point, mount)| (point, mount.kind))
    }
}

impl Mount<'_> {
    fn upper(&self) -> Option<PathBuf> {
        let mut options = self.options.split(|&byte| byte == b',');
        options.find_map(|option| option.strip_prefix(b"upperdir=")).map(unescape)
    }

    /// In newer kernels each lower directory may be an option of its own.
    fn lower(&self) -> Vec<PathBuf> {
        let options = self.options.split(|&byte| byte == b',');
        let each = options.filter_map(|option| {
            let together = option.strip_prefix(b"lowerdir=").map(|all| split_lower(&unescape(all)));
            together.or_else(|| option.strip_prefix(b"lowerdir+=").map(|one| vec![unescape(one)]))
        });
        each.flatten().collect()
    }

    fn describe(&self, hosts: &[Mount<'_>], volumes: &Volumes) -> Mounted {
        let is_clients = self.sources(hosts).iter().any(|source| volumes::is_clients(source));
        let kind = if self.is_own_memory(hosts) {
            Kind::Memory
        } else if volumes.take(&self.point, is_clients && self.writable, self.kind) {
            Kind::Volume
        } else {
            Kind::Other
        };
        let filesystem = String::from_utf8_lossy(self.kind).into();
        Mounted { kind, filesystem, writable: self.writable, is_clients }
    }

    /// Where on the host its content may lie; the path in its file system is one of them, for that is often the host's root.
    fn sources(&self, hosts: &[Mount<'_>]) -> Vec<PathBuf> {
        let part = unescape(self.part);
        let below = |mount: &Mount<'_>| {
            let rest = part.strip_prefix(unescape(mount.part)).ok()?;
            Some(Path::new("/").join(&mount.point).join(rest))
        };
        let at_host = hosts.iter().filter(|mount| mount.device == self.device).filter_map(below);
        at_host.chain([part.clone()]).collect()
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

/// Colons stand between directories; in a name they have a backslash before them.
fn split_lower(all: &Path) -> Vec<PathBuf> {
    let mut paths = vec![Vec::new()];
    let mut bytes = all.as_os_str().as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        match (byte, paths.last_mut()) {
            (b':', _) => paths.push(Vec::new()),
            (b'\\', Some(path)) => path.extend(bytes.next()),
            (_, Some(path)) => path.push(byte),
            (_, None) => {}
        }
    }
    paths.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect()
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

/// Whether this is a file system in memory.
pub(crate) fn is_memory(status: &StatFs) -> bool {
    /// `TMPFS_MAGIC`.
    const TMPFS: i128 = 0x0102_1994;
    i128::from(status.f_type) == TMPFS
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

    fn memory(view: &View) -> Vec<&Path> {
        view.own().filter(|(_, kind)| *kind == Kind::Memory).map(|(point, _)| point).collect()
    }

    #[test]
    fn the_upper_directory_and_the_mounts_are_found() {
        let view = View::parse(CONTAINER, HOST, &Volumes::default());
        assert_eq!(view.upper().unwrap(), Path::new("/var/lib/x y/fs"));
        assert_eq!(view.lower, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(view.place(Path::new("etc/passwd")), Place::Root);
        assert_eq!(view.place(Path::new("cache/a/b")), Place::Own(Path::new("cache")));
        for path in ["etc/hosts", "proc/1/status", "dev/null", "masked/x", "hostrun/x", "part/x"] {
            assert_eq!(view.place(Path::new(path)), Place::Elsewhere, "{path}");
        }
        assert_eq!(memory(&view), [Path::new("cache"), Path::new("dev/shm")]);
    }

    #[test]
    fn the_hosts_shared_memory_is_the_hosts() {
        let line = b"1 0 0:21 / /dev/shm rw - tmpfs tmpfs rw\n";
        assert!(memory(&View::parse(line, HOST, &Volumes::default())).is_empty());
    }

    #[test]
    fn volumes_are_found_where_they_are_mounted() {
        const MOUNTS: &[u8] = b"\
100 90 0:50 / / rw - overlay overlay rw,upperdir=/u\n\
101 100 8:1 /var/lib/docker/volumes/one/_data /data rw - ext4 /dev/sda rw\n\
102 100 8:2 /two/_data /more rw - ext4 /dev/sdb rw\n\
103 100 8:1 /srv/pages /pages rw - ext4 /dev/sda rw\n\
104 100 8:1 /var/lib/docker/volumes/three/_data /fixed ro - ext4 /dev/sda rw\n";
        const HOSTS: &[u8] =
            b"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:2 / /var/lib/docker/volumes rw - ext4 /dev/sdb rw\n";
        let found = |volumes: &str| {
            let view = View::parse(MOUNTS, HOSTS, &volumes.parse().unwrap());
            view.own().map(|(point, _)| point.display().to_string()).collect::<Vec<_>>()
        };
        assert!(found("none").is_empty());
        assert_eq!(found("all"), ["data", "more"]);
        assert_eq!(found("/pages,/fixed"), ["fixed", "pages"]);
    }

    #[test]
    fn lower_directories_are_told_apart() {
        let lower = |options: &str| {
            let line = format!("1 0 0:5 / / rw - overlay overlay rw,{options},upperdir=/u\n");
            View::parse(line.as_bytes(), b"", &Volumes::default()).lower
        };
        assert_eq!(lower("lowerdir=/a\\134:b:c\\040d"), [Path::new("/a:b"), Path::new("c d")]);
        assert_eq!(lower("lowerdir+=/a,lowerdir+=/b:c"), [Path::new("/a"), Path::new("/b:c")]);
    }

    #[test]
    fn without_an_overlay_there_is_no_telling() {
        let view = View::parse(b"1 0 8:1 / / rw - ext4 /dev/sda rw\n", b"", &Volumes::default());
        assert!(view.upper().unwrap_err().to_string().contains("ext4"));
    }
}
