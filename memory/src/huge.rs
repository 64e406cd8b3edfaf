//! Huge pages: the first tracked write splits one, and the kernel does not join it again by itself for a long time.

use std::time::Instant;

use rustix::process::{Pid, PidfdFlags};

use crate::spans::Spans;
use crate::sys;

const HUGE_PAGE: u64 = 2 << 20;

/// Joins the pages of process `host` again where `spans` says that huge ones were. No userfaultfd may be registered there.
pub(crate) fn collapse(host: i32, spans: &Spans) {
    let Some(pid) = Pid::from_raw(host) else { return };
    if spans.is_empty() {
        return;
    }
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    let begun = Instant::now();
    let (mut joined, mut left) = (0, 0);
    for span in spans.iter() {
        let first = span.start.next_multiple_of(HUGE_PAGE);
        for start in (first..span.end).step_by(2 << 20).filter(|start| start + HUGE_PAGE <= span.end) {
            match sys::collapse(std::os::fd::AsFd::as_fd(&process), start, HUGE_PAGE) {
                Ok(()) => joined += 1,
                // Unmapped meanwhile, or no memory is left in one piece: slower, not wrong.
                Err(_) => left += 1,
            }
        }
    }
    tracing::debug!(process = host, joined, left, took = ?begun.elapsed(), "huge pages joined again");
}
