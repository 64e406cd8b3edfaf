//! The kernel kept ready for CRIU's breakpoints.
//!
//! CRIU stops what it has dumped, or restored, by hardware breakpoints. The first of them on a host makes the scheduler begin to
//! look after such events, for which the kernel waits for a grace period of RCU (`account_event`, Linux 3.13 and later): 6 to 24
//! ms, of a freeze that takes 40. It does not while any event of a task is open, so one is opened while nobody stands still.

use std::os::fd::OwnedFd;

use crate::sys;

/// Breakpoints are set at once while this is kept. It costs nobody anything: what it counts never happens.
#[derive(Debug)]
pub(crate) struct Breakpoints(#[allow(dead_code, reason = "to be open is what it does")] OwnedFd);

impl Breakpoints {
    /// Waits for the kernel, here and now. Nothing where we may not: CRIU waits itself then.
    pub(crate) fn prepare() -> Option<Self> {
        let event = sys::open_idle_event();
        event.inspect_err(|error| tracing::debug!(%error, "breakpoints wait for the kernel")).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_open_as_long_as_it_is_kept() {
        let events = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let names = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            names.filter(|name| name.to_string_lossy().contains("perf_event")).count()
        };
        let before = events();
        let kept = Breakpoints::prepare();
        match &kept {
            Some(_) => assert_eq!(events(), before + 1),
            None => eprintln!("skipped: this kernel opens no event: {:?}", sys::open_idle_event()),
        }
        drop(kept);
        assert_eq!(events(), before);
    }
}
