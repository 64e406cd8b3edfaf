//! Mounts of this machine, and the deletion of trees that may hold some.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{umount2, MntFlags};

use super::command::Cmd;

/// One line of a `mountinfo` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type of the file system.
    pub fs_type: String,
    /// Options of the file system, not of the mount.
    pub super_options: String,
}

/// The mounts that the process `pid` (a number or `self`) sees, in the order in which they were made.
pub fn mounts_of(pid: &str) -> Result<Vec<Mount>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.lines().filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, point) = (head.next()?, head.next()?);
    let mut tail = tail.split(' ');
    let fs_type = tail.next()?.to_owned();
    let super_options = tail.nth(1).unwrap_or_default().to_owned();
    Some(Mount { root: unescape(root).into(), point: unescape(point).into(), fs_type, super_options })
}

/// The kernel writes blanks in paths as octal numbers.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Unmounts all that is mounted at or below `path`, the last one first.
pub fn unmount_below(path: &Path) -> Result<()> {
    for mount in mounts_of("self")?.iter().rev().filter(|mount| mount.point.starts_with(path)) {
        umount2(&mount.point, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", mount.point.display()))?;
    }
    Ok(())
}

/// Deletes the tree at `path`, if there is one, after what is mounted in it is gone; never leaves its file system.
pub fn remove_tree(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    unmount_below(path)?;
    let target = path.to_str().context("a path that is not UTF-8")?;
    Cmd::new(["rm", "-rf", "--one-file-system", "--", target]).timeout(Duration::from_secs(300)).ok()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_understood() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse_line(line).unwrap();
        assert_eq!((mount.root.to_str(), mount.point.to_str()), (Some("/mnt1"), Some("/mnt 2")));
        assert_eq!((mount.fs_type.as_str(), mount.super_options.as_str()), ("ext3", "rw,errors=continue"));
    }
}
