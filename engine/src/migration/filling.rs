//! What an application that runs still misses, and how it comes: from the source of a migration, or from a checkpoint.
//!
//! Who has a userfaultfd decides what a missing page reads as: when the last one is closed, as zeros. So a small process of ours has
//! copies, and kills the application should we die; until then whoever misses something waits.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use command_fds::FdMapping;
use fastmig_memory::fill::{Fill, Filled, Missing, Origin};
use fastmig_memory::spans::{union, without};
use fastmig_memory::Span;

use super::filled::Takes;
use crate::freeze::survivor::Survivor;
use crate::tree::application;
use crate::tree::cgroup::ApplicationCgroup;

/// The first descriptor that is the watcher's for no use of its own.
const FIRST: i32 = 10;

impl Takes for Filling {
    fn take(&self, process: i32, uffd: OwnedFd) -> io::Result<()> {
        self.add(process, uffd)
    }
}

/// What is missing, and how it comes.
#[derive(Debug)]
pub(crate) struct Filling {
    fill: Fill,
    missing: Vec<Missing>,
    watcher: Option<Survivor>,
}

impl Filling {
    pub(crate) fn begin(origin: Arc<dyn Origin>, missing: Vec<Missing>) -> io::Result<Self> {
        Ok(Self { fill: Fill::new(origin)?, missing, watcher: None })
    }

    pub(super) fn add(&self, process: i32, uffd: OwnedFd) -> io::Result<()> {
        self.fill.add(process, uffd, &self.missing)
    }

    /// All processes are there, and frozen: mappings that miss nothing are the kernel's alone again, and the rest begins to
    /// come.
    pub(crate) fn go_on(&mut self, cgroup: &ApplicationCgroup) -> io::Result<()> {
        for process in application::relations(&cgroup.pids()) {
            let untimely = self.fill.untimely(process.inner, process.host)?;
            if let Some(first) = untimely.first() {
                let (count, inner) = (untimely.len(), process.inner);
                let what = format!(
                    "process {inner} has something in {count} places where it misses memory, the first at {:#x}",
                    first.start
                );
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            self.fill.let_go(process.inner, &fastmig_memory::private_mappings(process.host)?);
        }
        self.fill.begin()
    }

    /// From here on our death is the application's.
    pub(crate) fn watch(&mut self, cgroup: &ApplicationCgroup) -> io::Result<()> {
        if self.watcher.is_none() {
            self.watcher = Some(watch(cgroup, self.fill.descriptors()?)?);
        }
        Ok(())
    }

    /// Nothing depends on us any more.
    pub(crate) fn unwatch(&mut self) {
        self.watcher = None;
    }

    pub(crate) fn wait(&self, patience: Duration) -> Result<bool, String> {
        self.fill.wait(patience)
    }

    /// Bytes that are there, and how often the application waited for some of them.
    pub(crate) fn told(&self) -> (u64, u64) {
        let filled = self.fill.filled();
        (filled.bytes, filled.faults)
    }

    /// All is there. What was let go of can be huge pages again.
    pub(crate) fn end(self, cgroup: &ApplicationCgroup) -> Filled {
        // It has copies of the userfaultfds.
        drop(self.watcher);
        let filled = self.fill.end();
        let mut missing: BTreeMap<i32, Vec<Span>> = BTreeMap::new();
        for one in &self.missing {
            let all = missing.entry(one.process).or_default();
            *all = union(all, &one.spans);
        }
        for process in application::relations(&cgroup.pids()) {
            let spans = missing.remove(&process.inner).unwrap_or_default();
            // Whole mappings, where only some pages are missing: others were split around them.
            let whole = fastmig_memory::private_mappings(process.host).unwrap_or_default();
            let touched = whole.into_iter().filter(|one| without(&[*one], &spans) != [*one]);
            fastmig_memory::join_huge_pages(process.host, touched.collect());
        }
        filled
    }
}

/// All memory is there when it is told that we are done, or the application is gone. What is frozen must be thawed to die.
const SCRIPT: &str = r#"read -r done || {
    while :; do
        some=
        while read -r pid; do some=y; kill -KILL "$pid"; done < "${1%/*}/cgroup.procs"
        [ "$some" ] || exit 0
        echo "$2" > "$1"
        sleep 0.01
    done
}"#;

fn watch(cgroup: &ApplicationCgroup, descriptors: Vec<OwnedFd>) -> io::Result<Survivor> {
    let numbered = (FIRST..).zip(descriptors);
    let descriptors = numbered.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    Survivor::start("fastmig-watcher", SCRIPT, cgroup, descriptors)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// The script against plain files.
    #[test]
    fn it_kills_only_when_its_master_died() {
        for (said, lives) in [(&b"done\n"[..], true), (b"", false)] {
            let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
            let directory = tempfile::tempdir().unwrap();
            let (file, processes) =
                (directory.path().join("freezer.state"), directory.path().join("cgroup.procs"));
            std::fs::write(&file, "").unwrap();
            std::fs::write(&processes, format!("{}\n", sleeper.id())).unwrap();
            let mut process = Command::new("/bin/sh")
                .args(["-c", SCRIPT, "x"])
                .arg(&file)
                .arg("THAWED")
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            process.stdin.take().unwrap().write_all(said).unwrap();
            if !lives {
                sleeper.wait().unwrap();
                std::fs::write(&processes, "").unwrap();
            }
            process.wait().unwrap();
            assert_eq!(sleeper.try_wait().unwrap().is_none(), lives);
            assert_eq!(std::fs::read_to_string(&file).unwrap().is_empty(), lives);
            drop(sleeper.kill());
            drop(sleeper.wait());
        }
    }
}
