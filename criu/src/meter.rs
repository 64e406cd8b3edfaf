//! What CRIU's processes take: processor, memory, I/O.
//!
//! They are looked at while they run, the last time right before they end: whoever waits for them may be another thread.

use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeVal;

/// What processes took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Time on processors.
    pub cpu: Duration,
    /// The most memory that one of them had at a time, in bytes.
    pub memory_peak: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

/// Adds up what several processes take.
#[derive(Debug, Default)]
pub struct Meter(Mutex<HashMap<u32, Taken>>);

impl Meter {
    /// All of them together; of memory the largest.
    #[must_use]
    pub fn total(&self) -> Taken {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().fold(Taken::default(), |sum, taken| Taken {
            cpu: sum.cpu + taken.cpu,
            memory_peak: sum.memory_peak.max(taken.memory_peak),
            read: sum.read + taken.read,
            written: sum.written + taken.written,
        })
    }

    /// Looks at a process. One that is gone stays as it was seen last.
    pub(crate) fn look(&self, pid: u32) {
        let Some(now) = look(&pid.to_string()) else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(pid).or_default();
        seen.cpu = seen.cpu.max(now.cpu);
        seen.memory_peak = seen.memory_peak.max(now.memory_peak);
        seen.read = seen.read.max(now.read);
        seen.written = seen.written.max(now.written);
    }
}

/// What the process that asks has taken so far.
#[must_use]
pub fn ourselves() -> Taken {
    let cpu =
        getrusage(UsageWho::RUSAGE_SELF).map(|usage| time(usage.user_time()) + time(usage.system_time()));
    Taken { cpu: cpu.unwrap_or_default(), ..look("self").unwrap_or_default() }
}

fn time(value: TimeVal) -> Duration {
    let whole = u64::try_from(value.tv_sec()).unwrap_or(0);
    Duration::from_secs(whole) + Duration::from_micros(u64::try_from(value.tv_usec()).unwrap_or(0))
}

/// Nothing when there is no such process.
fn look(pid: &str) -> Option<Taken> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let (status, io) = (read("status")?, read("io").unwrap_or_default());
    Some(Taken {
        cpu: cpu(&read("stat")?, &read("schedstat").unwrap_or_default()),
        memory_peak: value(&status, "VmHWM:") << 10,
        read: value(&io, "read_bytes:"),
        written: value(&io, "write_bytes:"),
    })
}

/// Its own time and that of the children that it has waited for, in user and kernel. In ticks, and of its first thread, which in
/// CRIU is nearly all, in nanoseconds.
fn cpu(stat: &str, first_thread: &str) -> Duration {
    // USER_HZ, which the kernel promises to programs on every architecture that this runs on.
    const TICK: Duration = Duration::from_millis(10);
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u32>().ok());
    let first = first_thread.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
    (TICK * ticks.sum::<u32>()).max(Duration::from_nanos(first))
}

fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_takes_is_seen_and_stays_when_it_is_gone() {
        let mut child = std::process::Command::new("sh");
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; read -r end";
        let mut child = child.args(["-c", script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let meter = Meter::default();
        let begun = std::time::Instant::now();
        while meter.total().cpu < Duration::from_millis(20) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it takes nothing");
            meter.look(child.id());
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        let before = meter.total();
        meter.look(child.id());
        assert_eq!(meter.total(), before);
        assert!(before.memory_peak > 100 << 10, "{before:?}");
    }

    #[test]
    fn a_line_of_stat_is_read_by_its_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3 1 20 0 1 0 4242";
        assert_eq!(cpu(stat, ""), Duration::from_millis(10 * (100 + 20 + 3 + 1)));
        assert_eq!(cpu("7 (a) S", "1500 20 3"), Duration::from_nanos(1500));
        assert!(ourselves().memory_peak > 0);
    }
}
