//! The files that the application has open or mapped: CRIU opens them by their paths, and compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use fastmig_rootfs::Content;
use rustix::fs::{openat2, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::{Destination, Reasons, Source};

/// More than any application has open.
pub(super) const MOST: usize = 50_000;
/// The kernel's limit of a path.
const LONGEST: usize = 4096;
/// How much of a file's beginning and end is compared: headers, and with them the build's own checksum.
const PART: u64 = 64 * 1024;
/// How many files a reason names.
const NAMED: usize = 5;

/// A file that the destination must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Used {
    path: String,
    directory: bool,
    /// Bytes, and a checksum of its beginning and end; not of what others may be writing to.
    content: Option<(u64, String)>,
}

/// Everything with a path that these processes have open, mapped, or as their directory; by its path in the container,
/// with a path to it from here.
pub(super) fn of(processes: &BTreeSet<i32>) -> BTreeMap<PathBuf, PathBuf> {
    let mut found = BTreeMap::new();
    for pid in processes {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let listed = ["map_files", "fd"].into_iter().flat_map(|list| {
            std::fs::read_dir(process.join(list)).into_iter().flatten().flatten().map(|entry| entry.path())
        });
        for link in listed.chain([process.join("cwd")]) {
            let Ok(path) = std::fs::read_link(&link) else { continue };
            // Sockets and pipes have no path, files that are deleted none any more.
            if path.is_absolute() && !path.to_string_lossy().ends_with(" (deleted)") {
                found.entry(path).or_insert(link);
            }
        }
    }
    found
}

/// Those of them that the destination must have itself, for they do not travel.
pub(super) fn used(source: &Source<'_>, reasons: &mut Reasons) -> BTreeSet<Used> {
    let changing: BTreeSet<PathBuf> = source
        .survey
        .mounts()
        .into_iter()
        .filter(|mount| mount.writable && matches!(mount.kind, Content::Bind | Content::Left))
        .map(|mount| mount.at)
        .collect();
    let stays = |path: &&PathBuf| !is_kernels(path) && !source.survey.travels(path);
    let mut all = BTreeSet::new();
    for path in source.used.keys().filter(stays).take(MOST) {
        let Some(text) = path.to_str() else {
            reasons.add(
                format!("the application uses {path:?}, whose name is no text"),
                "rename it in the image",
            );
            continue;
        };
        let compared = source.survey.mount_of(path).is_none_or(|mount| !changing.contains(&mount));
        all.extend(source.used.get(path).and_then(|link| describe(text, link, compared)));
    }
    all
}

/// A file of the kernel's, or a device: every container has the same.
fn is_kernels(path: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|top| path.starts_with(top)) && !path.starts_with("/dev/shm")
}

fn describe(path: &str, link: &Path, compared: bool) -> Option<Used> {
    let metadata = std::fs::metadata(link).ok()?;
    if !metadata.is_file() && !metadata.is_dir() {
        return None;
    }
    let content = if metadata.is_file() && compared {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(link).ok()?;
        Some((metadata.len(), sum(&file, &metadata).ok()?))
    } else {
        None
    };
    Some(Used { path: path.into(), directory: metadata.is_dir(), content })
}

/// Looks for each in the destination's container.
pub(super) fn check(files: &BTreeSet<Used>, here: &Destination<'_>, reasons: &mut Reasons) {
    let path = format!("/proc/{}/root", here.container.pid());
    let Ok(root) = File::open(&path).map(OwnedFd::from) else {
        return reasons
            .add(format!("the container's root cannot be opened ({path})"), "see whether it still runs");
    };
    let mut wrong = BTreeMap::<&str, Vec<&str>>::new();
    for file in files {
        if let Some(problem) = file.problem_below(&root) {
            wrong.entry(problem).or_default().push(&file.path);
        }
    }
    for (problem, paths) in wrong {
        let more =
            if paths.len() > NAMED { format!(" and {} more", paths.len() - NAMED) } else { String::new() };
        let named = paths.iter().take(NAMED).map(|path| (*path).to_owned()).collect::<Vec<_>>().join(", ");
        reasons.add(
            format!("the application uses {named}{more}, and here that {problem}"),
            "create the container from the same image with the same mounts",
        );
    }
}

impl Used {
    /// What is wrong with it below `root`.
    fn problem_below(&self, root: &OwnedFd) -> Option<&'static str> {
        let path = Path::new(&self.path);
        let inside = path.strip_prefix("/").ok();
        let normal =
            inside.is_some_and(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
        let Some(inside) = inside.filter(|_| normal && self.path.len() < LONGEST) else {
            return Some("is no path");
        };
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(held) = openat2(root, inside, flags, Mode::empty(), how) else { return Some("is missing") };
        let held = File::from(held);
        let Ok(metadata) = held.metadata() else { return Some("is missing") };
        if metadata.is_dir() != self.directory || !(metadata.is_dir() || metadata.is_file()) {
            return Some("is of another kind");
        }
        let (size, expected) = self.content.as_ref()?;
        if metadata.len() != *size {
            return Some("has another size");
        }
        let again = format!("/proc/self/fd/{}", held.as_raw_fd());
        let same =
            File::open(again).and_then(|file| sum(&file, &metadata)).is_ok_and(|found| found == *expected);
        (!same).then_some("has another content")
    }
}

/// A checksum of the beginning and the end.
fn sum(mut file: &File, metadata: &Metadata) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(PART))?;
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(PART)))?;
    hasher.update_reader(file.take(PART))?;
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> BTreeSet<i32> {
        BTreeSet::from([i32::try_from(std::process::id()).unwrap()])
    }

    #[test]
    fn what_is_open_and_what_is_mapped_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = of(&me());
        assert!(found.contains_key(file.path()));
        assert!(found.contains_key(&std::env::current_exe().unwrap()));
        assert!(found.contains_key(&std::env::current_dir().unwrap()));
        let path = file.path().to_path_buf();
        let deleted = file.into_file();
        assert!(!of(&me()).contains_key(&path));
        drop(deleted);
    }

    #[test]
    fn each_difference_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(File::open(directory.path()).unwrap());
        let file = directory.path().join("lib.so");
        std::fs::write(&file, "one").unwrap();
        let used = describe("/lib.so", &file, true).unwrap();
        assert_eq!(used.problem_below(&root), None);
        std::fs::write(&file, "two").unwrap();
        assert_eq!(used.problem_below(&root), Some("has another content"));
        std::fs::write(&file, "longer").unwrap();
        assert_eq!(used.problem_below(&root), Some("has another size"));
        assert_eq!(describe("/lib.so", &file, false).unwrap().problem_below(&root), None);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(used.problem_below(&root), Some("is missing"));
        std::fs::create_dir(&file).unwrap();
        assert_eq!(used.problem_below(&root), Some("is of another kind"));
        let outside = Used { path: "/../etc/passwd".into(), ..used.clone() };
        assert_eq!(outside.problem_below(&root), Some("is no path"));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(File::open(directory.path()).unwrap());
        nix::unistd::mkfifo(&directory.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let used = Used { path: "/pipe".into(), directory: false, content: Some((0, String::new())) };
        assert_eq!(used.problem_below(&root), Some("is of another kind"));
    }
}
