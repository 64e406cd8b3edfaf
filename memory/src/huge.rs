//! Huge pages: the first tracked write splits one, and the kernel does not join it again by itself for a long time.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags};

use crate::scan::Scanner;
use crate::spans::Spans;
use crate::threads::start_time;
use crate::{pagemap, sys, Span};

/// The size of a huge page, in bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Where a process had huge pages before it was tracked.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) host: i32,
    /// Tells it from a later process with its pid.
    pub(crate) start_time: u64,
    pub(crate) spans: Spans,
}

/// Joins pages of host process `host` in these spans to huge ones, where they are all there and nobody's but its own. No
/// userfaultfd may be registered there.
pub fn join_huge_pages(host: i32, spans: Vec<Span>) {
    if let Ok(start_time) = start_time(host) {
        Split { host, start_time, spans: Spans::from_unsorted(spans) }.join_full();
    }
}

impl Split {
    /// Joins those alone that have no holes.
    fn join_full(mut self) {
        let Ok(scanner) = Scanner::open(self.host) else { return };
        let blocks = self.spans.iter().flat_map(|span| {
            let first = span.start.next_multiple_of(HUGE_PAGE);
            (first..span.end).step_by(2 << 20).map(|start| Span { start, end: start + HUGE_PAGE })
        });
        self.spans = blocks.filter(|block| is_full(&scanner, *block)).collect();
        self.join();
    }

    /// Joins them again. No userfaultfd may be registered there.
    pub(crate) fn join(&self) {
        let Some(pid) = Pid::from_raw(self.host) else { return };
        let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
        if !start_time(self.host).is_ok_and(|now| now == self.start_time) {
            return;
        }
        if let Ok(scanner) = Scanner::open(self.host) {
            self.join_in(process.as_fd(), &scanner);
        }
    }

    fn join_in(&self, process: BorrowedFd<'_>, scanner: &Scanner) {
        let begun = Instant::now();
        let (mut joined, mut left) = (0, 0);
        for span in self.spans.iter() {
            let first = span.start.next_multiple_of(HUGE_PAGE);
            for start in (first..span.end).step_by(2 << 20).filter(|start| start + HUGE_PAGE <= span.end) {
                // What children share would be copied. Unmapped meanwhile, or no memory in one piece: slower, not wrong.
                if is_its_own(scanner, start) && sys::collapse(process, start, HUGE_PAGE).is_ok() {
                    joined += 1;
                } else {
                    left += 1;
                }
            }
        }
        tracing::debug!(process = self.host, joined, left, took = ?begun.elapsed(), "huge pages joined again");
    }
}

fn is_full(scanner: &Scanner, block: Span) -> bool {
    let mut pages = 0;
    let read = pagemap::entries(scanner.pagemap(), block, |_, entry| {
        pages += u64::from(entry.frame().is_some());
    });
    read.is_ok() && pages == HUGE_PAGE / crate::PAGE
}

fn is_its_own(scanner: &Scanner, start: u64) -> bool {
    let mut shared = false;
    let span = Span { start, end: start + HUGE_PAGE };
    let read = pagemap::entries(scanner.pagemap(), span, |_, entry| {
        shared |= entry.frame().is_some() && !entry.is_exclusive();
    });
    read.is_ok() && !shared
}
