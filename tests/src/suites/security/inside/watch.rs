//! CRIU while it works, as the kernel sees it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::apps::container::Container;

/// One CRIU as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    /// Inheritable, permitted, effective, bounding and ambient.
    pub(super) sets: [u64; 5],
    pub(super) users: String,
    pub(super) no_new_privs: String,
    /// Which of its namespaces are not the container's.
    pub(super) elsewhere: Vec<&'static str>,
}

const NAMESPACES: [&str; 7] = ["mnt", "uts", "ipc", "net", "pid", "cgroup", "user"];

/// Who comes into the container as CRIU while `operate` goes on.
pub(super) fn watched<T>(
    container: &Container,
    operate: impl FnOnce() -> Result<T>,
) -> Result<BTreeSet<Seen>> {
    // As the host counts it: this machine may have quite another process of that number.
    let first = container.host.outside(&format!("/proc/{}", container.status()?.pid));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Acquire) {
                seen.extend(criu_in(&first));
                std::thread::sleep(Duration::from_micros(500));
            }
            seen
        });
        let result = operate();
        over.store(true, Ordering::Release);
        let seen = looking.join().map_err(|_| anyhow::anyhow!("the one who looks panicked"))?;
        result.map(|_| seen)
    })
}

fn criu_in(first: &Path) -> Vec<Seen> {
    let namespace = |process: &Path, name: &str| fs::read_link(process.join("ns").join(name)).ok();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let Ok(line) = fs::read(process.join("cmdline")) else { continue };
        let is_criu = line.split(|byte| *byte == 0).any(|word| word == b"--unprivileged");
        if !is_criu || namespace(&process, "pid") != namespace(first, "pid") {
            continue;
        }
        let Ok(status) = fs::read_to_string(process.join("status")) else { continue };
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        // Its children become the application.
        let parent = Path::new("/proc").join(value("PPid"));
        if namespace(&parent, "pid") == namespace(first, "pid") || value("State").starts_with('Z') {
            continue;
        }
        let set = |name: &str| u64::from_str_radix(&value(name), 16).unwrap_or(u64::MAX);
        let elsewhere = |name: &&'static str| namespace(&process, name) != namespace(first, name);
        found.push(Seen {
            sets: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(set),
            users: format!("{} / {}", value("Uid"), value("Gid")),
            no_new_privs: value("NoNewPrivs"),
            elsewhere: NAMESPACES.iter().copied().filter(|name| elsewhere(name)).collect(),
        });
    }
    found
}
