//! All threads of a process stopped, and let go. Runs in the courier: nothing is allocated here beyond what it is given.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::process::{Pid, WaitOptions};

use super::call::{gone, Failed};
use crate::error::InjectFailure;
use crate::sys::{self, ptrace};

/// For how long a process may be kept waiting for its slowest thread.
const LIMIT: Duration = Duration::from_millis(20);
/// Most stops come sooner than a sleep would end.
const SPIN: Duration = Duration::from_micros(20);
const PTRACE_EVENT_STOP: i32 = 128;
/// `__WALL`: a thread's stop is reported like a process's.
const WALL: u32 = 0x4000_0000;

/// Threads of one process, at most.
pub(super) const MOST: usize = 1 << 16;

/// Why a thread has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Because we interrupted it, or with its process by SIGSTOP.
    Trap,
    /// Before or after a system call.
    Syscall,
    /// A signal is about to be delivered.
    Signal(i32),
}

/// The next stop of a thread that we trace; waited for until `limit`, if there is one.
pub(super) fn next_stop(thread: i32, limit: Option<Instant>) -> Result<Stop, Failed> {
    /// Not every end is reported by a signal.
    const LONG: Duration = Duration::from_millis(50);
    let begun = Instant::now();
    let options = WaitOptions::from_bits_retain(WALL) | WaitOptions::NOHANG;
    loop {
        match rustix::process::waitpid(Pid::from_raw(thread), options) {
            Ok(Some((_, status))) => return stop_of(status.as_raw()).ok_or_else(ended),
            Ok(None) if begun.elapsed() < SPIN => std::hint::spin_loop(),
            Ok(None) => {
                let left = limit.map_or(Some(LONG), |limit| limit.checked_duration_since(Instant::now()));
                match left {
                    Some(left) => sys::wait_for_child(left.min(LONG)),
                    None => return Err((InjectFailure::Busy, io::ErrorKind::TimedOut.into())),
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(gone(errno.into())),
        }
    }
}

fn ended() -> Failed {
    gone(io::Error::from_raw_os_error(libc::ESRCH))
}

/// Nothing when it has ended. (The real-time signals are why no library takes the status apart.)
fn stop_of(status: i32) -> Option<Stop> {
    if !libc::WIFSTOPPED(status) {
        return None;
    }
    Some(match (libc::WSTOPSIG(status), status >> 16) {
        (_, PTRACE_EVENT_STOP) => Stop::Trap,
        (signal, _) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        (signal, _) => Stop::Signal(signal),
    })
}

/// The threads of a process that we trace. They go on when the tracer ends, at the latest.
#[derive(Debug)]
pub(super) struct Halted {
    /// Stopped, or 0 where one has ended. Made before the fork, with room for [`MOST`].
    threads: Vec<i32>,
    begun: Instant,
}

impl Halted {
    /// Stops all threads in the directory `tasks` (`/proc/PID/task`).
    pub(super) fn new(tasks: &CStr, mut threads: Vec<i32>) -> Result<Self, Failed> {
        threads.clear();
        seize_new(tasks, &mut threads)?;
        let limit = Instant::now() + LIMIT;
        let mut halted = Self { threads, begun: Instant::now() };
        let mut waited_for = 0;
        // Whoever runs may make new threads; when all are stopped none can.
        while waited_for < halted.threads.len() {
            for thread in &halted.threads[waited_for..] {
                // ESRCH: it has ended, which the wait will find.
                let _ = ptrace::interrupt(*thread);
            }
            for at in waited_for..halted.threads.len() {
                halted.wait_for(at, limit)?;
            }
            waited_for = halted.threads.len();
            seize_new(tasks, &mut halted.threads)?;
        }
        Ok(halted)
    }

    fn wait_for(&mut self, at: usize, limit: Instant) -> Result<(), Failed> {
        let thread = self.threads[at];
        loop {
            match next_stop(thread, Some(limit)) {
                Ok(Stop::Trap) => return Ok(()),
                Ok(Stop::Syscall) => ptrace::go_on(thread, 0).map_err(gone)?,
                // It is the program's: handed back, it does not count.
                Ok(Stop::Signal(signal)) => ptrace::go_on(thread, signal).map_err(gone)?,
                Err((InjectFailure::Gone, _)) => {
                    self.threads[at] = -thread;
                    return Ok(());
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Any thread that can be made to do something: the first one, if it lives.
    pub(super) fn first(&self) -> Result<i32, Failed> {
        self.threads.iter().copied().find(|thread| *thread > 0).ok_or_else(ended)
    }

    /// Lets all threads go on; how long they were stopped.
    pub(super) fn release(self) -> Duration {
        for thread in self.threads.iter().filter(|thread| **thread > 0) {
            let _ = ptrace::detach(*thread);
        }
        let stop = self.begun.elapsed();
        // The courier ends here: what another thread of the parent's did with the allocator is not known.
        std::mem::forget(self);
        stop
    }
}

/// Adds the threads that are not in `threads` yet, until none is new.
fn seize_new(tasks: &CStr, threads: &mut Vec<i32>) -> Result<(), Failed> {
    loop {
        let before = threads.len();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(tasks, flags, Mode::empty()).map_err(|e| gone(e.into()))?;
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| gone(e.into()))?;
            let Some(thread) = number(entry.file_name()) else { continue };
            if threads.iter().any(|known| known.abs() == thread) {
                continue;
            }
            if threads.len() == MOST {
                return Err((InjectFailure::Busy, io::ErrorKind::OutOfMemory.into()));
            }
            match ptrace::seize(thread, ptrace::O_TRACESYSGOOD) {
                Ok(()) => threads.push(thread),
                // It has ended since, or is only waited for.
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                Err(e) if is_over(thread) => drop(e),
                Err(e) => return Err((InjectFailure::Trace, e)),
            }
        }
        if threads.len() == before {
            return Ok(());
        }
    }
}

/// A zombie cannot be traced (EPERM), nor does it run.
fn is_over(thread: i32) -> bool {
    // "NUMBER (NAME) STATE": a name has 15 bytes at most, and may have parentheses in it.
    let mut path = [0_u8; 32];
    let mut text = [0_u8; 64];
    let written = {
        use std::io::Write;
        let mut rest = &mut path[..31];
        write!(rest, "/proc/{thread}/stat").map(|()| rest.len())
    };
    let Ok(path) = written.and_then(|_| CStr::from_bytes_until_nul(&path).map_err(io::Error::other)) else {
        return false;
    };
    let Ok(file) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return true;
    };
    let Ok(count) = rustix::io::read(file, &mut text) else { return true };
    let text = &text[..count];
    let state = text.iter().rposition(|byte| *byte == b')').and_then(|at| text.get(at + 2));
    matches!(state, Some(b'Z' | b'X'))
}

fn number(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        let stopped = |signal: i32, event: i32| stop_of(event << 16 | signal << 8 | 0x7f);
        assert_eq!(stopped(libc::SIGTRAP, PTRACE_EVENT_STOP), Some(Stop::Trap));
        assert_eq!(stopped(libc::SIGSTOP, PTRACE_EVENT_STOP), Some(Stop::Trap));
        assert_eq!(stopped(libc::SIGTRAP | 0x80, 0), Some(Stop::Syscall));
        assert_eq!(stopped(libc::SIGTRAP, 0), Some(Stop::Signal(libc::SIGTRAP)));
        assert_eq!(stopped(40, 0), Some(Stop::Signal(40)), "a real-time signal");
        assert_eq!(stop_of(9), None, "killed");
        assert_eq!(stop_of(3 << 8), None, "exited");
    }

    #[test]
    fn who_lives_is_not_over() {
        assert!(!is_over(i32::try_from(std::process::id()).unwrap()));
        assert!(is_over(i32::MAX));
    }
}
