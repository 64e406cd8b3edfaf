//! Which process a number means: a PID and its start time, so that a reused number is never killed by mistake.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that is meant and no other that gets its number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number in the PID namespace of the caller.
    pub pid: i32,
    /// Clock ticks between boot and its start.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Result<Self> {
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
        let (_, start_time) =
            parse_stat(&stat).with_context(|| format!("cannot read stat of process {pid}"))?;
        Ok(Self { pid, start_time })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        parse_stat(&stat)
            .is_some_and(|(state, start)| start == self.start_time && !matches!(state, 'Z' | 'X'))
    }

    /// Kills it, unless it is gone.
    pub fn kill(&self) {
        if self.is_alive() {
            // It may end between the look and the signal: an error here means that.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }

    /// Waits until it has ended, and reaps it if it is a child of ours.
    pub fn wait_gone(&self, limit: Duration) -> Result<()> {
        let gone = || {
            reap_orphans();
            !self.is_alive()
        };
        wait_until(limit, gone).with_context(|| format!("process {} does not end", self.pid))?;
        // Mostly the child of another.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        Ok(())
    }
}

/// Reaps what killed commands have left to us, a subreaper: PID 1 of a host cannot end before such a process of its host is
/// gone. A command itself leads a process group and is its guard's to reap; an orphan is in the group of another.
pub(crate) fn reap_orphans() {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children =
        threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let children = children.collect::<Vec<_>>().join(" ");
    for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let group = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse().ok());
        if parse_stat(&stat).is_some_and(|(state, _)| state == 'Z')
            && group.is_some_and(|group: i32| group != child)
        {
            // Reaped by another meanwhile, at worst.
            let _ = waitpid(Pid::from_raw(child), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// The number of a child.
pub fn pid_of(child: &Child) -> i32 {
    // The kernel's numbers are below 2^22; what is above is no process.
    i32::try_from(child.id()).unwrap_or(i32::MAX)
}

/// State and start time out of a line of `/proc/PID/stat`; the name in it may hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// Waits until `condition` holds, looking at short intervals.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    while !condition() {
        if start.elapsed() > limit {
            bail!("waited {:.1} s in vain", limit.as_secs_f64());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_parser() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
    }

    #[test]
    fn this_process_is_alive_and_another_with_its_number_is_not() {
        let me = ProcessId::of(std::process::id().try_into().unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_time: me.start_time + 1, ..me }.is_alive());
    }
}
