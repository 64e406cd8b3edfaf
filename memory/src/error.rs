//! What can go wrong with tracking.

use std::io;

/// Why processes could not be tracked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or call for a process failed, though the process is there.
    #[error("could not {action} of process {process}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// The process, by its host pid.
        process: i32,
        /// What the system said.
        source: io::Error,
    },
    /// A process could not be stopped and made to open a userfaultfd.
    #[error("process {process} cannot be tracked: {reason}")]
    Inject {
        /// The process, by its host pid.
        process: i32,
        /// At which step.
        reason: InjectFailure,
        /// What the system said.
        source: io::Error,
    },
    /// The caller has not frozen a process that it said is.
    #[error("thread {thread} of process {process} is running: freeze the processes before the last round")]
    NotFrozen {
        /// The process, by its host pid.
        process: i32,
        /// The thread, by its host id.
        thread: i32,
    },
    /// A process has memory written behind its back, and ours.
    #[error(
        "process {process} uses asynchronous I/O (io_setup): what devices write into its memory is not seen"
    )]
    Asynchronous {
        /// The process, by its host pid.
        process: i32,
    },
    /// Something of our own failed.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The step at which an injection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InjectFailure {
    /// Another tracer has it, or we may not trace it.
    #[error("it cannot be traced; is a debugger attached?")]
    Trace,
    /// A thread did not stop in time: it waits in the kernel, or for a process that it has made by vfork.
    #[error("a thread does not stop")]
    Busy,
    /// Not a 64-bit x86 process, or without a vdso.
    #[error("it is not an ordinary 64-bit process")]
    Foreign,
    /// The process refused the system call.
    #[error("it cannot open a userfaultfd")]
    Call,
    /// The descriptor could not be taken out of it.
    #[error("its userfaultfd cannot be taken")]
    Take,
    /// It ended meanwhile.
    #[error("it has ended")]
    Gone,
}

impl Error {
    /// For `map_err`.
    pub(crate) fn process<E: Into<io::Error>>(action: &'static str, process: i32) -> impl FnOnce(E) -> Self {
        move |e| Self::Process { action, process, source: e.into() }
    }

    /// For `map_err`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |e| Self::Io { action, source: e.into() }
    }
}

/// Why neither method works here.
#[derive(Debug, thiserror::Error)]
#[error("the writes of running processes cannot be seen on this kernel: by write-protection: {write_protect}; by soft-dirty bits: {soft_dirty}")]
pub struct Unsupported {
    /// Why not by userfaultfd.
    pub write_protect: String,
    /// Why not by soft-dirty bits.
    pub soft_dirty: String,
}
