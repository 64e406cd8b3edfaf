//! Every `unsafe` of the init: system calls that `nix` has no safe and complete wrapper for.
//!
//! Signals are plain numbers and masks plain bits here, because glibc hides two real-time signals from its callers
//! and `nix` knows none; an init forwards them all.

use std::ffi::{c_char, c_int, CStr};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use fastmig_control::{Errno as WireErrno, ExitStatus, Pid, Signal};
use nix::errno::Errno;
use nix::sys::socket::{accept4, recvmsg, ControlMessageOwned, MsgFlags, SockFlag};

/// A set of signals; bit 0 is signal 1.
pub(crate) type Mask = u64;

/// An error number as the protocol carries it.
pub(crate) fn wire_errno(errno: Errno) -> WireErrno {
    WireErrno::new(errno as i32).unwrap_or(WireErrno::IO)
}

/// Takes ownership of an inherited descriptor. Fails when it is not open.
pub(crate) fn take_descriptor(fd: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag and takes no pointer.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: it is open, and inherited descriptors have no owner in this program yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Accepts a connection, close-on-exec and non-blocking.
pub(crate) fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Receives a packet and the descriptor that came with it, close-on-exec; waits for neither.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut control = nix::cmsg_space!(RawFd);
    let mut content = [IoSliceMut::new(buffer)];
    // MSG_TRUNC says how long a packet was that is longer.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC | MsgFlags::MSG_CMSG_CLOEXEC;
    let packet = recvmsg::<()>(socket.as_raw_fd(), &mut content, Some(&mut control), flags)?;
    let mut received = None;
    for message in packet.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(descriptors) = message {
            for fd in descriptors {
                // SAFETY: the kernel has just made it for this call. One that was there before is closed.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((packet.bytes, received))
}

/// Replaces the signal mask and returns the one before.
pub(crate) fn swap_mask(mask: Mask) -> nix::Result<Mask> {
    let mut before: Mask = 0;
    // SAFETY: both pointers are to live masks of the size that the last argument names.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, 8)
    };
    Errno::result(result).map(|_| before)
}

/// A non-blocking descriptor that reads the blocked signals of `mask`.
pub(crate) fn signal_descriptor(mask: Mask) -> nix::Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the pointer is to a live mask of the size that the next argument names.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, flags) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a signal's action to the default, or to ignoring it. Errors are for SIGKILL and SIGSTOP, which have neither.
pub(crate) fn set_ignored(signal: c_int, ignored: bool) {
    // The kernel's sigaction: handler, flags, restorer, mask. SIG_DFL is 0, SIG_IGN is 1.
    let action = [u64::from(ignored), 0, 0, 0];
    // SAFETY: the pointer is to a live action without a handler; the kernel reads no more than these four words.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), ptr::null_mut::<u64>(), 8) };
}

/// Sends any signal, real-time ones too.
pub(crate) fn kill(pid: Pid, signal: Signal) -> nix::Result<()> {
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::kill(pid.get(), signal.get()) }).map(drop)
}

/// Kills every process of the pid namespace but the caller, which is its init.
pub(crate) fn kill_everyone() {
    // SAFETY: takes no pointer.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Reaps one dead child, of whatever kind. `None` when none is dead.
pub(crate) fn reap() -> Option<(i32, ExitStatus)> {
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    if pid <= 0 {
        return None;
    }
    // The kernel's codes are a byte and its signals below 65, so neither conversion can fail.
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(Signal::new(libc::WTERMSIG(status)).unwrap_or(Signal::KILL))
    } else {
        ExitStatus::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    };
    Some((pid, status))
}

/// Whether `pid`, or with `None` any process, is a child of the caller, dead or alive.
pub(crate) fn has_child(pid: Option<Pid>) -> bool {
    let (kind, id) = match pid {
        Some(pid) => (libc::P_PID, pid.get().unsigned_abs()),
        None => (libc::P_ALL, 0),
    };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: a null pointer for the details is allowed by waitid(2) of Linux, and by glibc, which passes it on.
    unsafe { libc::waitid(kind, id, ptr::null_mut(), flags) == 0 }
}

/// Forks; the child runs `child`, which must not allocate, and exits with what it returns.
pub(crate) fn fork(child: impl FnOnce() -> c_int) -> nix::Result<i32> {
    // SAFETY: the init has one thread, so no lock is held across the fork.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child.as_raw()),
        // SAFETY: ends the child at once, without the C library's farewell.
        nix::unistd::ForkResult::Child => unsafe { libc::_exit(child()) },
    }
}

/// Executes `file` with this environment, or the caller's. Returns only with the reason why not.
pub(crate) fn exec(file: &CStr, argv: &Argv<'_>, environment: Option<&Argv<'_>>) -> Errno {
    match environment {
        // SAFETY: `file` is a C string and `argv` a null-terminated array of C strings that outlive the call.
        None => unsafe { libc::execv(file.as_ptr(), argv.pointers.as_ptr()) },
        Some(environment) => {
            let environment = environment.pointers.as_ptr();
            // SAFETY: as above, and so is the environment.
            unsafe { libc::execve(file.as_ptr(), argv.pointers.as_ptr(), environment) }
        }
    };
    Errno::last()
}

/// A command, or an environment, as `execve` wants it, made before a fork.
pub(crate) struct Argv<'a> {
    pointers: Vec<*const c_char>,
    _command: &'a [std::ffi::CString],
}

impl<'a> Argv<'a> {
    pub(crate) fn new(command: &'a [std::ffi::CString]) -> Self {
        let end = std::iter::once(ptr::null());
        Self { pointers: command.iter().map(|arg| arg.as_ptr()).chain(end).collect(), _command: command }
    }
}

/// Makes the terminal the caller's controlling one; the caller leads a session without.
pub(crate) fn take_terminal(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the request takes a number, here 0: steal from nobody.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Gives the controlling terminal up, for the caller's whole session.
pub(crate) fn leave_terminal(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the request takes no argument.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) }).map(drop)
}

/// Closes descriptors in a forked child, whose parent owns them.
pub(crate) fn close_in_child(descriptors: &[RawFd]) {
    for fd in descriptors {
        // SAFETY: the child runs no code that uses them or drops their owners: it executes or exits.
        unsafe { libc::close(*fd) };
    }
}
