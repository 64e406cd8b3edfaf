//! What a host has used: processor time, its network, the memory of its processes.
//!
//! All of it is read from outside, so that whatever runs there is measured alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::host::Host;

impl Host {
    /// Processor time of all its processes so far, also of those that have ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let own = self.cgroup("cpuacct").context("no cgroup tells processor time")?;
        let text = read(&own.join("cpuacct.usage")).or_else(|_| read(&own.join("cpu.stat")))?;
        match text.trim().parse() {
            Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
            Err(_) => {
                let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
                used.map(Duration::from_micros).context("a cgroup without its processor time")
            }
        }
    }

    /// Bytes that have come in by its network.
    pub fn received_bytes(&self) -> Result<u64> {
        let text = read(Path::new(&format!("/proc/{}/net/dev", self.pid())))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no bytes of eth0")
    }

    /// Resident memory of its processes, in bytes, under the names of their programs.
    pub fn resident_bytes(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for pid in self.processes() {
            // It may have ended meanwhile.
            let Some((name, bytes)) = resident(&pid) else { continue };
            *sums.entry(name).or_default() += bytes;
        }
        sums
    }

    /// Its processes, as this machine counts them.
    fn processes(&self) -> Vec<String> {
        let mut pids = Vec::new();
        if let Some(own) = self.cgroup("cpuacct") {
            collect(&own, &mut pids);
        }
        pids
    }

    /// Its cgroup in the hierarchy of this controller.
    fn cgroup(&self, controller: &str) -> Option<PathBuf> {
        let has_it = |options: &str| options.split(',').any(|option| option == controller);
        let hierarchies = &self.state.cgroups;
        let found = hierarchies.iter().find(|one| one.is_unified() || has_it(&one.options));
        found.map(|hierarchy| hierarchy.own.clone())
    }
}

fn collect(cgroup: &Path, pids: &mut Vec<String>) {
    if let Ok(text) = fs::read_to_string(cgroup.join("cgroup.procs")) {
        pids.extend(text.lines().map(str::to_owned));
    }
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

fn resident(pid: &str) -> Option<(String, u64)> {
    const PAGE: u64 = 4096;
    let process = Path::new("/proc").join(pid);
    let name = fs::read_to_string(process.join("comm")).ok()?.trim().to_owned();
    let pages = fs::read_to_string(process.join("statm")).ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some((name, pages * PAGE))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_its_program_and_its_memory() {
        let (name, bytes) = resident(&std::process::id().to_string()).unwrap();
        assert!(!name.is_empty() && bytes > 1 << 16, "{name}: {bytes}");
        assert_eq!(resident("0"), None);
    }
}
