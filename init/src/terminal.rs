//! The container's terminal, which belongs to the application's session and not to the init's.
//!
//! When a session's leader dies the kernel hangs its terminal up, and every descriptor of it goes dead, the init's
//! too. So the init remembers where the terminal is and opens it again before the next application inherits it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{open, readlink, OFlag};
use nix::sys::stat::{fstat, stat, Mode};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, isatty};

use crate::sys;

/// Where runtimes bind the container's terminal.
const CONSOLE: &str = "/dev/console";

/// The terminal that was the init's standard input when it started.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// A path of the same device inside the container, if there is one.
    path: Option<CString>,
    /// Which of the descriptors 0, 1, 2 are terminals.
    streams: [bool; 3],
}

impl Terminal {
    /// Gives the terminal up as the init's controlling one, if standard input is a terminal at all.
    pub(crate) fn release() -> Option<Self> {
        let stdin = std::io::stdin();
        if !isatty(&stdin).unwrap_or(false) {
            return None;
        }
        // Giving it up sends both to the foreground process group, which the init is in.
        for signal in [libc::SIGHUP, libc::SIGCONT] {
            sys::set_ignored(signal, true);
        }
        // Fails where the terminal controls another session or none; then there is nothing to give up.
        let _ = sys::leave_terminal(stdin.as_fd());
        for signal in [libc::SIGHUP, libc::SIGCONT] {
            sys::set_ignored(signal, false);
        }
        let streams =
            [true, isatty(std::io::stdout()).unwrap_or(false), isatty(std::io::stderr()).unwrap_or(false)];
        Some(Self { path: find(stdin.as_fd()), streams })
    }

    /// Replaces the descriptors that hanging up has killed. Opened before the dead ones close, so that the other
    /// end of the terminal never sees it abandoned. When it cannot be opened, it is gone for good.
    pub(crate) fn reopen(&self) {
        let Some(path) = &self.path else { return };
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let Ok(terminal) = open(path.as_c_str(), flags, Mode::empty()) else { return };
        let [stdin, stdout, stderr] = self.streams;
        let _ = stdin.then(|| dup2_stdin(&terminal));
        let _ = stdout.then(|| dup2_stdout(&terminal));
        let _ = stderr.then(|| dup2_stderr(&terminal));
    }
}

/// A path that leads to the terminal. What the link says may be another device in this mount namespace.
fn find(terminal: BorrowedFd<'_>) -> Option<CString> {
    let device = fstat(terminal).ok()?.st_rdev;
    let link = readlink("/proc/self/fd/0").ok().and_then(|path| CString::new(path.into_vec()).ok());
    let console = CString::new(CONSOLE).ok();
    [link, console]
        .into_iter()
        .flatten()
        .find(|path| stat(path.as_c_str()).is_ok_and(|found| found.st_rdev == device))
}
