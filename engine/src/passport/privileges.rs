//! What the application's processes may do, against what the destination's container allows.

use std::collections::{BTreeMap, BTreeSet};

use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::Reasons;
use crate::tree::privilege;
use crate::{capabilities, Container};

/// The limit that has a limit of its own, in the kernel.
const OPEN_FILES: &str = "Max open files";

/// The most and the least that any of the application's threads has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Privileges {
    capabilities: BTreeSet<String>,
    bounding: BTreeSet<String>,
    no_new_privs: bool,
    seccomp: u32,
    /// Hard limits by the kernel's names; the highest number means none.
    limits: BTreeMap<String, u64>,
    /// How the container's users are the host's.
    users: String,
}

impl Privileges {
    pub(super) fn of(processes: &BTreeSet<i32>) -> Self {
        let threads: Vec<_> = processes.iter().flat_map(|&pid| privilege::living_threads(pid)).collect();
        let bounding = threads.iter().fold(0, |all, thread| all | thread.capbnd.unwrap_or(0));
        let mut limits = BTreeMap::new();
        for (name, hard) in processes.iter().flat_map(|pid| hard_limits(&pid.to_string())) {
            let highest = limits.entry(name).or_insert(hard);
            *highest = hard.max(*highest);
        }
        Self {
            capabilities: capabilities::names(privilege::held_by(processes)),
            bounding: capabilities::names(bounding),
            no_new_privs: threads.iter().all(|thread| thread.nonewprivs == Some(1)),
            seccomp: threads.iter().map(|thread| thread.seccomp.unwrap_or(0)).min().unwrap_or(0),
            limits,
            users: processes.first().map(|pid| users_of(*pid)).unwrap_or_default(),
        }
    }

    pub(super) fn check(&self, container: &Container, reasons: &mut Reasons) {
        self.check_capabilities(container, reasons);
        self.check_limits(reasons);
        let Ok(first) = Process::new(container.pid()).and_then(|process| process.status()) else { return };
        if first.nonewprivs == Some(1) && !self.no_new_privs {
            reasons.add(
                "the container lets nobody gain privileges (no_new_privs), and the application may",
                "create it without --security-opt no-new-privileges, or the application's own with it",
            );
        }
        if first.seccomp.unwrap_or(0) > self.seccomp {
            reasons.add(
                "the container filters system calls (seccomp), and the application runs without a filter",
                "create it with --security-opt seccomp=unconfined, or the application's own without",
            );
        }
        let users = users_of(container.pid());
        if users != self.users {
            reasons.add(
                format!(
                    "the container's users are not the host's in the same way ({users:?} here, {:?} there)",
                    self.users
                ),
                "create both containers with the same user namespace settings",
            );
        }
    }

    fn check_capabilities(&self, container: &Container, reasons: &mut Reasons) {
        let allowed = reasons.take(capabilities::allowed_in(container.pid())).map(capabilities::names);
        let handed_on = reasons.take(capabilities::for_restore(
            container.pid(),
            &container.config,
            capabilities::Memory::IsThere,
        ));
        let (Some(allowed), Some(handed_on)) = (allowed, handed_on) else { return };
        let handed_on: BTreeSet<String> = handed_on.iter().map(ToString::to_string).collect();
        // What CRIU does not hold itself falls out of the bounding set without harm.
        let bounding = self.bounding.intersection(&handed_on);
        let wanted: BTreeSet<&String> = self.capabilities.iter().chain(bounding).collect();
        let missing: Vec<&str> =
            wanted.into_iter().filter(|name| !allowed.contains(*name)).map(String::as_str).take(64).collect();
        if !missing.is_empty() {
            reasons.add(
                format!("the container does not allow {}, which the application holds", missing.join(", ")),
                "create it with them (--cap-add), or the application's own without (--cap-drop)",
            );
        }
    }

    fn check_limits(&self, reasons: &mut Reasons) {
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open")
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        let wanted = self.limits.get(OPEN_FILES).copied().unwrap_or(0);
        if most.is_some_and(|most| wanted > most) {
            reasons.add(
                format!(
                    "the application may open {wanted} files, this kernel lets a process open {}",
                    most.unwrap_or(0)
                ),
                format!("set sysctl fs.nr_open={wanted} here"),
            );
        }
        let raises = !capabilities::missing().contains(&caps::Capability::CAP_SYS_RESOURCE);
        let ours = hard_limits("self");
        for (name, wanted) in self.limits.iter().filter(|_| !raises) {
            if ours.get(name).is_some_and(|ours| ours < wanted) {
                reasons.add(
                    format!("the application's limit {name:?} is above FastMig's here, which lacks CAP_SYS_RESOURCE to raise it"),
                    "give FastMig that capability, or raise its own limit",
                );
            }
        }
    }
}

/// The hard limits of a process by the kernel's names.
fn hard_limits(pid: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    text.lines().skip(1).filter_map(hard_limit).collect()
}

fn hard_limit(line: &str) -> Option<(String, u64)> {
    /// Names have blanks, and a column of this width.
    const NAME: usize = 26;
    let (name, values) = line.split_at_checked(NAME)?;
    let hard = values.split_whitespace().nth(1)?;
    let hard = if hard == "unlimited" { u64::MAX } else { hard.parse().ok()? };
    Some((name.trim().into(), hard))
}

fn users_of(pid: i32) -> String {
    let map = |kind| std::fs::read_to_string(format!("/proc/{pid}/{kind}_map")).unwrap_or_default();
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}; {}", words(map("uid")), words(map("gid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_by_its_columns() {
        let line = "Max open files            1024                 524288               files     ";
        assert_eq!(hard_limit(line), Some((OPEN_FILES.into(), 524_288)));
        let line = "Max cpu time              unlimited            unlimited            seconds   ";
        assert_eq!(hard_limit(line), Some(("Max cpu time".into(), u64::MAX)));
        assert!(hard_limits("self").contains_key(OPEN_FILES));
    }

    #[test]
    fn a_higher_limit_than_the_kernels_is_a_reason() {
        let mut mine = Privileges::of(&BTreeSet::from([i32::try_from(std::process::id()).unwrap()]));
        let mut reasons = Reasons::default();
        mine.check_limits(&mut reasons);
        assert_eq!(reasons, Reasons::default());
        mine.limits.insert(OPEN_FILES.into(), u64::MAX);
        mine.check_limits(&mut reasons);
        assert!(reasons.to_string().contains("fs.nr_open"), "{reasons}");
    }
}
