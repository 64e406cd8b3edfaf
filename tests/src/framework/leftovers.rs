//! What a test leaves behind in a host: mounts, cgroups, files and processes beyond those of a known good moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{bail, Result};

use super::cgroups;
use super::host::Host;
use super::mounts::mounts_of;
use super::process::{reap_orphans, wait_until};

/// Directories whose entries count as leftovers.
const WATCHED: &[&str] = &["/run/containerd/s", "/run/containerd/fifo", "/run/runc"];

/// Directories of containerd's tasks, and of what runc and FastMig know of containers. In each, one for each namespace, which
/// stays.
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";
const RUNC: &str = "/run/containerd/runc";
const FASTMIG: &str = "/run/fastmig";

/// What CRIU has learnt of the kernel and what policies have decided, there, which stays too.
const OF_THE_HOST: [&str; 2] = [".criu", ".policy"];

/// What ends at once may take so long on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// What there is, and how often: two processes with the same command line are two.
#[derive(Debug, Default, Clone)]
pub struct Snapshot(BTreeMap<String, usize>);

impl Snapshot {
    fn add(&mut self, kind: &str, what: impl std::fmt::Display) {
        *self.0.entry(format!("{kind} {what}")).or_default() += 1;
    }

    fn beyond(&self, baseline: &Self) -> Vec<String> {
        let count_before = |what: &String| baseline.0.get(what).copied().unwrap_or(0);
        let more = self.0.iter().filter(|(what, count)| **count > count_before(what));
        more.map(|(what, count)| match count - count_before(what) {
            1 => what.clone(),
            n => format!("{what} (x{n})"),
        })
        .collect()
    }
}

/// Fails when a host holds more than before. What it holds counts as its own afterwards: the next case has its own faults to
/// find.
pub fn nothing_is_left(host: &Host) -> Result<()> {
    let gone = wait_until(SOON, || host.leftovers().is_ok_and(|left| left.is_empty()));
    let left = host.leftovers()?;
    if gone.is_err() && !left.is_empty() {
        host.mark_baseline()?;
        bail!("left behind on host {}: {left:#?}", host.name());
    }
    Ok(())
}

impl Host {
    /// Takes what there is now for what belongs there.
    pub fn mark_baseline(&self) -> Result<()> {
        let snapshot = self.snapshot()?;
        *self.baseline.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        Ok(())
    }

    /// What there is beyond the last baseline: lines such as `mount /x`, `cgroup memory/x`, `file /run/x`, `process sleep 5`.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let now = self.snapshot()?;
        Ok(now.beyond(&self.baseline.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn snapshot(&self) -> Result<Snapshot> {
        // What a killed command of the test itself has left is none of the host's.
        reap_orphans();
        let mut snapshot = Snapshot::default();
        for mount in mounts_of(&self.pid().to_string())? {
            snapshot.add("mount", mount.point.display());
        }
        let namespaces = self.names_in(TASKS);
        for hierarchy in &self.state.cgroups {
            for cgroup in cgroups::tree(&hierarchy.own) {
                let below = cgroup.strip_prefix(&hierarchy.own).unwrap_or(&cgroup);
                // The stock parts never remove the parent of a namespace's containers.
                if !namespaces.iter().any(|namespace| below == Path::new(namespace)) {
                    snapshot.add("cgroup", Path::new(&hierarchy.place).join(below).display());
                }
            }
        }
        for dir in WATCHED {
            self.add_files(&mut snapshot, dir);
        }
        for dir in [TASKS, RUNC, FASTMIG]
            .iter()
            .flat_map(|top| namespaces.iter().map(move |name| format!("{top}/{name}")))
        {
            self.add_files(&mut snapshot, &dir);
        }
        let is_left = |name: &&String| !namespaces.contains(name) && !OF_THE_HOST.contains(&name.as_str());
        for name in self.names_in(FASTMIG).iter().filter(is_left) {
            snapshot.add("file", format_args!("{FASTMIG}/{name}"));
        }
        self.add_processes(&mut snapshot);
        Ok(snapshot)
    }

    fn add_files(&self, snapshot: &mut Snapshot, dir: &str) {
        for name in self.names_in(dir) {
            snapshot.add("file", format_args!("{dir}/{name}"));
        }
    }

    fn names_in(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.outside(dir)) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// All of the host's processes, those of containers too, as its own `/proc` lists them.
    fn add_processes(&self, snapshot: &mut Snapshot) {
        let Ok(entries) = fs::read_dir(self.outside("/proc")) else { return };
        for entry in entries.flatten() {
            let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
            let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
            if is_process {
                let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                let line = words.join(" ");
                // A zombie has no command line, but is left over all the same.
                snapshot.add("process", if line.trim().is_empty() { name.trim() } else { line.trim() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts_and_as_often_as_it_is_new() {
        let (mut before, mut after) = (Snapshot::default(), Snapshot::default());
        before.add("process", "sh");
        for _ in 0..3 {
            after.add("process", "sh");
        }
        after.add("mount", "/x");
        assert_eq!(after.beyond(&before), ["mount /x", "process sh (x2)"]);
        assert!(before.beyond(&after).is_empty());
    }
}
