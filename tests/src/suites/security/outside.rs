//! What lies around a container, and whether anything of it was created, changed or read.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Result};

use crate::framework::Host;

/// A file system in which each access leaves its time.
pub(super) const WATCHED: &str = "/srv/outside";

/// What hostile names lead to.
pub(super) const SECRET: &str = "/srv/outside/secret";

/// What it holds, of which nothing may show anywhere else.
pub(super) const CONTENT: &str = "a secret of the host\n";

/// The parts of the host's own file system that nobody changes while the cases run.
const STILL: &[&str] =
    &["/etc", "/root", "/home", "/srv", "/opt", "/boot", "/usr/local", "/usr/lib/fastmig", "/var/lib/misc"];

/// Everything there, with what tells that it was touched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outside(BTreeMap<PathBuf, String>);

/// Makes the watched files.
pub(super) fn prepare(host: &Host) -> Result<()> {
    let script = format!(
        "mountpoint -q {WATCHED} || {{ mkdir -p {WATCHED} && mount -t tmpfs -o strictatime,mode=700 none {WATCHED}; }}"
    );
    host.sh(&script).ok()?;
    host.write_file(SECRET, CONTENT)?;
    host.sh(&format!(
        "cd {WATCHED}; chmod 600 secret; mkdir -p directory; mkfifo -m 600 pipe 2>/dev/null; true"
    ))
    .ok()?;
    host.mark_baseline()
}

impl Outside {
    /// As it is now. `neighbour` is PID 1 of another container, whose files count too.
    pub(super) fn of(host: &Host, neighbour: i32) -> Result<Self> {
        let mut found = BTreeMap::new();
        for place in STILL {
            walk(&host.outside(place), *place == "/srv", &mut found)?;
        }
        for place in ["etc", "tmp", "root"] {
            walk(&host.outside(&format!("/proc/{neighbour}/root/{place}")), false, &mut found)?;
        }
        Ok(Self(found))
    }

    /// Fails when it is not as `before`, and says where.
    pub(super) fn is_as(&self, before: &Self) -> Result<()> {
        let differs = |(path, what): &(&PathBuf, &String)| before.0.get(*path) != Some(*what);
        let mut changed: Vec<String> =
            self.0.iter().filter(differs).map(|(path, what)| format!("{}: {what}", path.display())).collect();
        let gone = before.0.keys().filter(|path| !self.0.contains_key(*path));
        changed.extend(gone.map(|path| format!("{} is gone", path.display())));
        ensure!(changed.is_empty(), "outside the container there was created, changed or read: {changed:#?}");
        Ok(())
    }
}

/// `reads` tells whether being read counts, too: elsewhere the tests themselves read.
fn walk(path: &Path, reads: bool, found: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    let Ok(status) = fs::symlink_metadata(path) else { return Ok(()) };
    found.insert(path.into(), describe(&status, reads && status.is_file()));
    if status.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), reads, found)?;
        }
    }
    Ok(())
}

fn describe(status: &Metadata, reads: bool) -> String {
    let read = if reads { format!("{}.{}", status.atime(), status.atime_nsec()) } else { "-".into() };
    format!(
        "inode {} mode {:o} owner {}:{} size {} changed {}.{} read {read}",
        status.ino(),
        status.mode(),
        status.uid(),
        status.gid(),
        status.len(),
        status.ctime(),
        status.ctime_nsec()
    )
}
