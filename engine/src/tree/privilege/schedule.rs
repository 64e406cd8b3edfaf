//! How a restored thread is scheduled: not before others, unless the container could have asked for that itself.

use procfs::process::{Limits, Stat};

/// `SCHED_FIFO`, `SCHED_RR` and `SCHED_DEADLINE`.
const REAL_TIME: [u32; 3] = [1, 2, 6];

/// What a thread has of the processor beyond what PID 1 of its container, or a limit of it, allows.
pub(super) fn preferred(found: &Stat, allowed: &Stat, limits: &Limits) -> Option<String> {
    let may = |limit: procfs::process::LimitValue| match limit {
        procfs::process::LimitValue::Unlimited => true,
        procfs::process::LimitValue::Value(value) => value > 0,
    };
    let real_time = |stat: &Stat| stat.policy.is_some_and(|policy| REAL_TIME.contains(&policy));
    if real_time(found) && !real_time(allowed) && !may(limits.max_realtime_priority.hard_limit) {
        return Some("real-time scheduling".into());
    }
    if found.nice < allowed.nice && !may(limits.max_nice_priority.hard_limit) {
        return Some(format!("a nice value of {}", found.nice));
    }
    None
}

#[cfg(test)]
mod tests {
    use procfs::process::Process;

    use super::*;

    #[test]
    fn what_goes_before_others_is_named() {
        let me = Process::myself().unwrap();
        let (own, mut limits) = (me.stat().unwrap(), me.limits().unwrap());
        limits.max_realtime_priority.hard_limit = procfs::process::LimitValue::Value(0);
        limits.max_nice_priority.hard_limit = procfs::process::LimitValue::Value(0);
        assert_eq!(preferred(&own, &own, &limits), None);
        let mut first = me.stat().unwrap();
        first.policy = Some(1);
        assert!(preferred(&first, &own, &limits).unwrap().contains("real-time"));
        assert_eq!(preferred(&first, &first, &limits), None);
        first.policy = own.policy;
        first.nice = own.nice - 1;
        assert!(preferred(&first, &own, &limits).unwrap().contains("nice"));
        limits.max_nice_priority.hard_limit = procfs::process::LimitValue::Value(30);
        assert_eq!(preferred(&first, &own, &limits), None);
    }
}
