//! What a restored process may use: no more than its container's PID 1, whose limits the container's creator has set. What
//! goes beyond is brought down and not refused, for an application may come from a container with higher ones.

use std::io;

use procfs::process::{Limit, LimitValue, Limits, Process};
use rustix::process::{prlimit, Pid, Resource, Rlimit};

use crate::tree::application;

/// Brings the limits of process `pid`, and its standing when memory is short, down to what is allowed.
///
/// # Errors
/// When the kernel refuses, as it does for other users' processes without CAP_SYS_RESOURCE.
pub(super) fn bring_down(pid: i32, allowed: &Limits, oom_score_adj: Option<i32>) -> io::Result<()> {
    let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let found = limits_of(pid)?;
    for ((resource, found), (_, allowed)) in each(&found).into_iter().zip(each(allowed)) {
        if let Some(lower) = lowered(found, allowed) {
            tracing::warn!(pid, ?resource, limit = ?lower.maximum, "brought down to the container's");
            prlimit(Some(process), resource, lower)?;
        }
    }
    match (application::oom_score_adj(pid), oom_score_adj) {
        (Some(found), Some(allowed)) if found < allowed => {
            std::fs::write(format!("/proc/{pid}/oom_score_adj"), allowed.to_string())
        }
        _ => Ok(()),
    }
}

fn limits_of(pid: i32) -> io::Result<Limits> {
    Process::new(pid).and_then(|process| process.limits()).map_err(io::Error::other)
}

/// What `found` becomes where its hard limit is above that of `allowed`.
fn lowered(found: Limit, allowed: Limit) -> Option<Rlimit> {
    let number = |value: LimitValue| match value {
        LimitValue::Unlimited => None,
        LimitValue::Value(value) => Some(value),
    };
    let maximum = number(allowed.hard_limit)?;
    let above = |value: LimitValue| number(value).is_none_or(|value| value > maximum);
    let current = if above(found.soft_limit) { Some(maximum) } else { number(found.soft_limit) };
    above(found.hard_limit).then_some(Rlimit { current, maximum: Some(maximum) })
}

fn each(limits: &Limits) -> [(Resource, Limit); 16] {
    [
        (Resource::Cpu, limits.max_cpu_time),
        (Resource::Fsize, limits.max_file_size),
        (Resource::Data, limits.max_data_size),
        (Resource::Stack, limits.max_stack_size),
        (Resource::Core, limits.max_core_file_size),
        (Resource::Rss, limits.max_resident_set),
        (Resource::Nproc, limits.max_processes),
        (Resource::Nofile, limits.max_open_files),
        (Resource::Memlock, limits.max_locked_memory),
        (Resource::As, limits.max_address_space),
        (Resource::Locks, limits.max_file_locks),
        (Resource::Sigpending, limits.max_pending_signals),
        (Resource::Msgqueue, limits.max_msgqueue_size),
        (Resource::Nice, limits.max_nice_priority),
        (Resource::Rtprio, limits.max_realtime_priority),
        (Resource::Rttime, limits.max_realtime_timeout),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A process with this many open files at most.
    fn limited(files: u64) -> std::process::Child {
        let script = format!("ulimit -n {files}; exec sleep 100");
        let child = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let hard = || limits_of(pid).unwrap().max_open_files.hard_limit;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !matches!(hard(), LimitValue::Value(found) if found == files) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn what_is_above_the_container_s_comes_down_and_nothing_goes_up() {
        let (mut first, mut high, mut low) = (limited(100), limited(200), limited(50));
        let init = first.id().cast_signed();
        for (child, expected) in [(&mut high, 100), (&mut low, 50)] {
            let pid = child.id().cast_signed();
            bring_down(pid, &limits_of(init).unwrap(), None).unwrap();
            let files = limits_of(pid).unwrap().max_open_files;
            assert!(matches!(files.hard_limit, LimitValue::Value(found) if found == expected), "{files:?}");
            assert!(matches!(files.soft_limit, LimitValue::Value(found) if found <= expected), "{files:?}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        first.kill().unwrap();
        first.wait().unwrap();
    }

    #[test]
    fn no_limit_is_above_every_limit() {
        let limit = |soft, hard| Limit { soft_limit: soft, hard_limit: hard };
        let (none, ten) = (LimitValue::Unlimited, LimitValue::Value(10));
        let lower = lowered(limit(LimitValue::Value(3), none), limit(ten, ten)).unwrap();
        assert_eq!((lower.current, lower.maximum), (Some(3), Some(10)));
        let lower = lowered(limit(none, none), limit(ten, ten)).unwrap();
        assert_eq!((lower.current, lower.maximum), (Some(10), Some(10)));
        assert!(lowered(limit(ten, ten), limit(none, none)).is_none());
        assert!(lowered(limit(ten, ten), limit(ten, ten)).is_none());
    }
}
