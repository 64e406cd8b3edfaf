//! Files that travel between real overlays, each the root of a process: whatever was done to them, the destination's are the
//! source's then. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{chown, symlink, FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fastmig_rootfs::{unpack, Content, Error, Packer, Survey, Volumes};
use rustix::fs::{getxattr, mknodat, setxattr, FileType, XattrFlags, CWD};
use tempfile::TempDir;

/// Mounts a root over two layers, with a volume and a file system in memory, and stays in it.
const SCRIPT: &str = r#"
set -e
cd "$0"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$0/top:$0/base,upperdir=$0/upper,workdir=$0/work" merged
mount --bind /usr merged/usr
mount --bind "volumes/one/_data" merged/data
mount -t tmpfs -o mode=755 tmpfs merged/cache
exec chroot merged /bin/sleep 600
"#;

/// A process with a root of its own.
struct Root {
    directory: TempDir,
    process: Child,
}

impl Root {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["base", "top", "upper", "work", "merged", "volumes/one/_data"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        fill_image(&path.join("base"), &path.join("top"));
        let process =
            Command::new("unshare").args(["--mount", "sh", "-c", SCRIPT]).arg(path).spawn().unwrap();
        let root = Self { directory, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fs::read_link(format!("/proc/{}/exe", root.pid())).is_ok_and(|exe| exe.ends_with("sleep")) {
            assert!(Instant::now() < deadline, "the root does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        root
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    /// Its root, from here.
    fn path(&self, inside: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid())).join(inside)
    }

    fn describe(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        for part in ["", "data", "cache"] {
            describe(&self.path(part), Path::new(part), &mut found);
        }
        // Where something else is mounted.
        found.retain(|path, _| !path.starts_with("usr"));
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // With its mounts gone; the overlay's own directory has no rights.
        let _ = fs::set_permissions(self.directory.path().join("work/work"), Permissions::from_mode(0o700));
    }
}

/// Every name of [`NAMES`] is something somewhere, and hidden elsewhere.
fn fill_image(base: &Path, top: &Path) {
    for name in ["usr", "data", "cache", "proc", "a/b", "d/e"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    for (name, place) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        symlink(place, base.join(name)).unwrap();
    }
    for (number, name) in ["a/file", "a/b/file", "d/file", "d/e/deep", "f", "e"].into_iter().enumerate() {
        fs::write(base.join(name), format!("of the image {number}")).unwrap();
        fs::set_permissions(base.join(name), Permissions::from_mode(0o640)).unwrap();
    }
    symlink("d/file", base.join("c")).unwrap();
    fs::create_dir_all(top.join("d/e")).unwrap();
    fs::write(top.join("d/e/b"), "of the upper layer").unwrap();
    fs::write(top.join("f"), "hides the other").unwrap();
    // A whiteout, and a directory that hides the one below.
    mknodat(CWD, top.join("e"), FileType::CharacterDevice, 0o600.into(), 0).unwrap();
    fs::create_dir_all(top.join("a/b")).unwrap();
    setxattr(top.join("a/b"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    let all = [
        "find",
        "-P",
        &base.display().to_string(),
        &top.display().to_string(),
        "-exec",
        "touch",
        "-h",
        "-d",
        "@1000000000",
        "{}",
        "+",
    ];
    assert!(Command::new(all[0]).args(&all[1..]).status().unwrap().success());
}

/// All that must be the same of what is below `at`, on its file system.
fn describe(at: &Path, name: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let device = fs::metadata(at).unwrap().dev();
    for entry in fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let status = fs::symlink_metadata(&path).unwrap();
        let kind = status.file_type();
        let inside = status.dev() == device || kind.is_file() || kind.is_symlink();
        if !inside {
            continue;
        }
        let mut text = format!("{:o} {} {} ", status.mode(), status.uid(), status.gid());
        text += &format!("{}.{} ", status.mtime(), status.mtime_nsec());
        if kind.is_file() || kind.is_dir() {
            let mut value = [0; 64];
            let length = getxattr(&path, ATTRIBUTE, &mut value).unwrap_or(0);
            text += &format!("{:?} ", &value[..length]);
        }
        if kind.is_file() {
            let mut hasher = DefaultHasher::new();
            fs::read(&path).unwrap().hash(&mut hasher);
            text += &format!("{} {} {:x}", status.nlink(), status.len(), hasher.finish());
        } else if kind.is_symlink() {
            text += &fs::read_link(&path).unwrap().display().to_string();
        } else if kind.is_dir() {
            describe(&path, &name, found);
        }
        found.insert(name, text);
    }
}

const ATTRIBUTE: &str = "user.fastmig";
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "file"];

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn path(&mut self) -> PathBuf {
        let mut path = PathBuf::from(["", "", "data", "cache"][self.below(4)]);
        for _ in 0..=self.below(3) {
            path.push(NAMES[self.below(NAMES.len())]);
        }
        path
    }
}

/// Does something to the files below `root`; most of it fails where the names are what they are.
fn act(random: &mut Random, root: &Path) {
    let number = random.below(1000);
    let (inside, other) = (random.path(), random.path());
    let (path, other) = (root.join(inside), root.join(other));
    let _ = match random.below(14) {
        0..=2 => fs::write(&path, format!("written {number}")),
        3 => File::options().append(true).open(&path).and_then(|mut file| file.write_all(b"more")),
        4 => File::options().write(true).open(&path).and_then(|file| {
            file.set_len(3 << 20)?;
            file.write_all_at(b"island", (number as u64) << 10)
        }),
        5 => fs::remove_file(&path),
        6 => fs::remove_dir_all(&path),
        7 => fs::create_dir_all(&path),
        8 => fs::rename(&path, &other),
        9 => fs::hard_link(&path, &other),
        10 => symlink(format!("target {number}"), &path),
        11 => fs::symlink_metadata(&path).and_then(|status| match status.file_type() {
            kind if kind.is_symlink() || kind.is_fifo() => Ok(()),
            _ => fs::set_permissions(
                &path,
                Permissions::from_mode(0o700 + u32::try_from(number % 64).unwrap()),
            ),
        }),
        12 => chown(&path, Some(u32::try_from(number).unwrap()), Some(7)),
        _ => setxattr(&path, ATTRIBUTE, format!("{number}").as_bytes(), XattrFlags::empty())
            .map_err(Into::into),
    };
}

fn act_often(random: &mut Random, root: &Root, times: usize) {
    let path = root.path("");
    (0..times).for_each(|_| act(random, &path));
}

fn all() -> Volumes {
    Volumes::all()
}

fn round(packer: &mut Packer) -> Vec<u8> {
    let mut archive = Vec::new();
    packer.round(&mut archive, &[].into()).unwrap();
    archive
}

/// Whether this can be tested here.
fn can_mount() -> bool {
    let possible = rustix::process::geteuid().is_root()
        && Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !possible {
        eprintln!("skipped: this process may not make mount namespaces");
    }
    possible
}

fn require_same(source: &Root, destination: &Root, what: &str) {
    let (there, here) = (source.describe(), destination.describe());
    let differ = |path: &&PathBuf| there.get(*path) != here.get(*path);
    let paths: Vec<_> = there.keys().chain(here.keys()).filter(differ).collect();
    let told = paths
        .iter()
        .map(|path| format!("{path:?}: sent {:?}, there is {:?}", there.get(*path), here.get(*path)));
    assert!(paths.is_empty(), "{what}\n{}", told.collect::<Vec<_>>().join("\n"));
}

#[test]
fn whatever_is_done_arrives_and_comes_back() {
    if !can_mount() {
        return;
    }
    for seed in 1..=12_u64 {
        let (source, destination) = (Root::new(), Root::new());
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        act_often(&mut random, &source, 150);
        // Somebody else's leftovers.
        act_often(&mut random, &destination, 60);
        let mut packer = Packer::of(source.pid(), &all()).unwrap();
        for number in 1..=3 {
            let archive = round(&mut packer);
            unpack(destination.pid(), &all(), archive.as_slice()).unwrap();
            require_same(&source, &destination, &format!("seed {seed}, round {number}"));
            act_often(&mut random, &source, 40);
        }
        act_often(&mut random, &destination, 100);
        let archive = round(&mut Packer::of(destination.pid(), &all()).unwrap());
        unpack(source.pid(), &all(), archive.as_slice()).unwrap();
        require_same(&destination, &source, &format!("seed {seed}, the way back"));
    }
}

#[test]
fn what_the_destination_hides_of_the_image_comes_back() {
    if !can_mount() {
        return;
    }
    let (source, destination) = (Root::new(), Root::new());
    let there = |name: &str| destination.path(name);
    fs::remove_dir_all(there("d")).unwrap();
    fs::create_dir(there("d")).unwrap();
    fs::write(there("d/own"), "").unwrap();
    fs::remove_file(there("f")).unwrap();
    fs::write(there("a/file"), "changed").unwrap();
    fs::set_permissions(there("a/b"), Permissions::from_mode(0o700)).unwrap();
    fs::write(source.path("d/file"), "the source's").unwrap();
    let archive = round(&mut Packer::of(source.pid(), &all()).unwrap());
    unpack(destination.pid(), &all(), archive.as_slice()).unwrap();
    require_same(&source, &destination, "hidden");
    assert_eq!(fs::read_to_string(there("d/e/b")).unwrap(), "of the upper layer");
    assert_eq!(fs::read_to_string(there("f")).unwrap(), "hides the other");
    assert!(!there("e").exists(), "the image's own whiteout");
}

#[test]
fn a_volume_is_only_filled_where_one_is_let() {
    if !can_mount() {
        return;
    }
    let (source, destination) = (Root::new(), Root::new());
    fs::write(source.path("data/new"), "").unwrap();
    fs::write(destination.path("data/old"), "").unwrap();
    fs::set_permissions(source.path("data"), Permissions::from_mode(0o1770)).unwrap();
    let archive = round(&mut Packer::of(source.pid(), &all()).unwrap());
    let error = unpack(destination.pid(), &Volumes::default(), archive.as_slice()).unwrap_err();
    assert!(matches!(&error, Error::NoVolume { path } if path == Path::new("data")), "{error}");
    assert!(destination.path("data/old").exists());

    let named: Volumes = "/data".parse().unwrap();
    unpack(destination.pid(), &named, archive.as_slice()).unwrap();
    assert!(destination.path("data/new").exists() && !destination.path("data/old").exists());
    assert_eq!(fs::metadata(destination.path("data")).unwrap().mode() & 0o7777, 0o1770);
    let nowhere: Volumes = "/nowhere".parse().unwrap();
    assert!(matches!(Packer::of(source.pid(), &nowhere), Err(Error::NoVolume { .. })));

    // Without it, the volume's content stays where it is.
    let archive = round(&mut Packer::of(source.pid(), &Volumes::default()).unwrap());
    fs::write(destination.path("data/kept"), "").unwrap();
    unpack(destination.pid(), &named, archive.as_slice()).unwrap();
    assert!(destination.path("data/kept").exists());
}

#[test]
fn holes_cost_nothing() {
    if !can_mount() {
        return;
    }
    let (source, destination) = (Root::new(), Root::new());
    let size = 10_u64 << 30;
    let noise: Vec<u8> =
        (0..1_u32 << 20).map(|byte| u8::try_from(byte.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    for place in ["data/sparse", "sparse", "cache/sparse"] {
        let file = File::create(source.path(place)).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&noise, size / 2).unwrap();
    }
    let begun = Instant::now();
    let archive = round(&mut Packer::of(source.pid(), &all()).unwrap());
    assert!(archive.len() < 4 << 20, "{} bytes", archive.len());
    unpack(destination.pid(), &all(), archive.as_slice()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for place in ["data/sparse", "sparse", "cache/sparse"] {
        let file = File::open(destination.path(place)).unwrap();
        let status = file.metadata().unwrap();
        assert_eq!(status.len(), size);
        assert!(status.blocks() * 512 <= 2 << 20, "{place}: {} blocks", status.blocks());
        let mut found = vec![0; noise.len()];
        file.read_exact_at(&mut found, size / 2).unwrap();
        assert!(found == noise, "{place}");
    }
}

#[test]
fn a_survey_tells_what_travels() {
    if !can_mount() {
        return;
    }
    let root = Root::new();
    fs::write(root.path("a/file"), vec![1; 1 << 20]).unwrap();
    fs::write(root.path("data/file"), vec![1; 2 << 20]).unwrap();
    let survey = Survey::of(root.pid(), &all()).unwrap();
    for (path, travels) in [
        ("/a/file", true),
        ("/data/any", true),
        ("/cache/any", true),
        ("/d/file", false),
        ("/usr/bin/env", false),
    ] {
        assert_eq!(survey.travels(Path::new(path)), travels, "{path}");
    }
    let kind = |at: &str| survey.mounts().into_iter().find(|mount| mount.at == Path::new(at)).unwrap().kind;
    assert_eq!(
        (kind("/data"), kind("/cache"), kind("/usr")),
        (Content::Volume, Content::Memory, Content::Bind)
    );
    let rooms = survey.rooms().unwrap();
    let used = |at: &str| rooms.iter().find(|room| room.at == Path::new(at)).unwrap().used;
    assert!((1 << 20..2 << 20).contains(&used("/")) && (2 << 20..3 << 20).contains(&used("/data")));
    let left = Survey::of(root.pid(), &Volumes::default()).unwrap();
    assert!(left.mounts().iter().any(|mount| mount.kind == Content::Left && mount.writable));

    // The same image, whatever was written over it; another one, when one file is.
    let other = Root::new();
    assert_eq!(other_image(&other), survey.image().unwrap());
    fs::write(other.directory.path().join("base/a/more"), "").unwrap();
    let image = other_image(&other).unwrap();
    let differ: Vec<_> = survey
        .image()
        .unwrap()
        .unwrap()
        .into_iter()
        .filter(|(top, sum)| image.get(top) != Some(sum))
        .collect();
    assert_eq!(differ.len(), 1);
    assert_eq!(OsStr::new(&differ[0].0), "a");
}

fn other_image(root: &Root) -> Option<BTreeMap<String, String>> {
    Survey::of(root.pid(), &Volumes::default()).unwrap().image().unwrap()
}
