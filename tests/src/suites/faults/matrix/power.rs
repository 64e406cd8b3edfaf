//! A host loses its power: all its processes at once, and all that it had in memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::phases::Phase;
use super::seen::Fate;
use super::subject::Subject;
use crate::framework::process::wait_until;
use crate::framework::{cgroups, Host};

pub(super) const LOST: &str = "host power loss";

const GONE: Duration = Duration::from_secs(20);

/// What a start finds empty: mounts of containers, and what lies in `/run`.
const FORGET: &str = "
awk '{print $5}' /proc/self/mountinfo | grep -E '^/run/(containerd|fastmig)' | sort -r | while read mount; do
    umount -l \"$mount\"
done
rm -rf /run/fastmig /run/containerd /run/runc /run/*.pid
nft flush ruleset
true";

/// From the second time on a migration's destination loses it every other time.
pub(super) fn lost(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    subject.mark()?;
    subject.keep()?;
    if phase == Phase::Restoring {
        subject.stand_by()?;
    }
    let far = phase == Phase::Migrating && number % 2 == 1;
    let host = if far { subject.destination().host.clone() } else { subject.source().host.clone() };
    // What runs on that host does not come to an end of its own.
    let struck = subject.during(phase, number, |_| lose(&host));
    restore_power(&host)?;
    struck?;
    let moved = phase == Phase::Migrating && subject.follow()?;
    if far && !moved && subject.status()?["application"] == "standby" {
        // It was committed in that very moment: nobody has it any more.
        subject.start_other_again()?;
        subject.note(Fate::Standby, "it had moved, and went with its new host");
        return Ok(());
    }
    if far != moved {
        // It was elsewhere.
        subject.start_other_again()?;
        subject.arrived()?;
        subject.note(if moved { Fate::Moved } else { Fate::RunsOn }, "");
        return Ok(());
    }
    subject.start_again()?;
    subject.note(Fate::Again, "");
    Ok(())
}

/// All processes but those two that are the machine itself.
fn lose(host: &Host) -> Result<()> {
    let keep = machine(host)?;
    let others = || -> Vec<i32> {
        let tree = host.state.cgroups.iter().flat_map(|hierarchy| cgroups::tree(&hierarchy.own));
        let members = tree.map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default());
        let members = members.collect::<Vec<_>>().join("");
        let all = members.lines().filter_map(|line| line.parse().ok());
        all.filter(|pid| !keep.contains(pid) && !is_zombie(*pid)).collect()
    };
    let gone = wait_until(GONE, || {
        let left = others();
        for pid in &left {
            // It may be gone already.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        // Killed first: what is frozen dies, and does not run.
        cgroups::thaw(&host.state.cgroups);
        left.is_empty()
    });
    gone.with_context(|| format!("something lives on: {:?}", others()))
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// PID 1 of the host and what it waits for.
fn machine(host: &Host) -> Result<Vec<i32>> {
    let init = host.pid();
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
    let is_sleep = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0infinity"))
    };
    let sleep = children.split_whitespace().filter_map(|word| word.parse().ok()).filter(is_sleep);
    Ok(sleep.chain([init]).collect())
}

fn restore_power(host: &Host) -> Result<()> {
    host.sh(FORGET).ok()?;
    for hierarchy in &host.state.cgroups {
        for cgroup in cgroups::tree(&hierarchy.own) {
            // The host's own have processes in them.
            let _ = fs::remove_dir(cgroup);
        }
    }
    host.start_containerd()?;
    host.start_fastmigd()
}
