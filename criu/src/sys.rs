//! The system calls that no safe wrapper offers. All of this crate's `unsafe` is here, one expression wide.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{clone, CloneFlags};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::{waitpid, WaitStatus};

/// `prctl(PR_CAPBSET_DROP)` for every capability that is not in `keep` (bit n = capability n).
pub(crate) fn drop_bounding_set(keep: u64) -> io::Result<()> {
    for capability in 0..64_u64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: takes integers only.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if known < 0 {
            return Ok(()); // past the kernel's last capability
        }
        // SAFETY: takes integers only.
        check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
    }
    Ok(())
}

/// Sets the effective and permitted capabilities to `set`.
pub(crate) fn set_capabilities(set: u64, inheritable: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: 0x2008_0522, pid: 0 };
    let half = |shift: u32| CapabilityHalf {
        effective: u32::try_from(set >> shift & 0xffff_ffff).unwrap_or(0),
        permitted: u32::try_from(set >> shift & 0xffff_ffff).unwrap_or(0),
        inheritable: u32::try_from(inheritable >> shift & 0xffff_ffff).unwrap_or(0),
    };
    let halves = [half(0), half(32)];
    // SAFETY: both pointers are to live values laid out as capset(2) wants for this version.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })
}

/// Whether capabilities outlive that root becomes another user.
pub(crate) fn keep_capabilities(keep: bool) -> io::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) })
}

/// Lets capabilities outlive the start of a program; they must be permitted and inheritable.
pub(crate) fn raise_ambient(set: u64) -> io::Result<()> {
    for capability in (0..64_u64).filter(|capability| set & (1 << capability) != 0) {
        // SAFETY: takes integers only.
        check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) })?;
    }
    Ok(())
}

/// No program that is started from here on brings privileges.
pub(crate) fn gain_nothing() -> io::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Joins a new, empty session keyring, so that what CRIU restores does not hold the host's.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is read through it.
    match check_long(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) }) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()), // a kernel without keyrings
        result => result,
    }
}

/// Executes the program behind `program`, without looking its name up in the (joined) mount namespace.
/// Returns only on failure.
pub(crate) fn execute(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    match nix::unistd::execveat(program, c"", arguments, environment, nix::fcntl::AtFlags::AT_EMPTY_PATH) {
        Err(errno) => errno.into(),
    }
}

/// Runs `prepare` in the child between fork and exec.
///
/// `prepare` must only make system calls and touch memory that it already owns: the parent has threads.
pub(crate) fn before_exec(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the callers' closures make system calls alone and allocate nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Of a child that makes a system call or two.
const STACK: usize = 64 << 10;

/// Runs `work` in a child, and waits for it. The child has our memory, not a copy: that takes a millisecond and more, in which
/// none of our threads gets any new, for fork(3) holds the locks of malloc(3) meanwhile.
///
/// `work` must only make system calls and touch memory that it already owns.
///
/// # Errors
/// What `work` failed with.
pub(crate) fn in_child(mut work: impl FnMut() -> nix::Result<()>) -> io::Result<()> {
    let mut stack = vec![0; STACK];
    let run = Box::new(|| work().map_or_else(|errno| errno as isize, |()| 0));
    // No signal is handled in the child, where it would be in our memory.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: the child has a stack of its own, and the one who could touch what `run` does waits until the child has ended.
    let child = unsafe {
        clone(run, &mut stack, CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK, Some(libc::SIGCHLD))
    };
    before.thread_set_mask()?;
    match waitpid(child?, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, error) => Err(io::Error::from_raw_os_error(error)),
        ended => Err(io::Error::other(format!("a child ended so: {ended:?}"))),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn check_long(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A descriptor that the kernel has just made for us, and that is nobody else's.
pub(crate) fn received(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel has made it for whoever reads the message, or made the call.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// An event of the calling thread that never happens (perf_event_open(2), `PERF_COUNT_SW_DUMMY`).
pub(crate) fn open_idle_event() -> io::Result<OwnedFd> {
    const SOFTWARE: u32 = 1;
    const DUMMY: u64 = 9;
    const EXCLUDE_KERNEL: u64 = 1 << 5;
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
    let size = u32::try_from(size_of::<EventAttributes>()).unwrap_or(0);
    let attributes =
        EventAttributes { kind: SOFTWARE, size, config: DUMMY, flags: EXCLUDE_KERNEL, ..Default::default() };
    let (this_thread, any_processor, no_group): (libc::pid_t, libc::c_int, libc::c_int) = (0, -1, -1);
    // SAFETY: reads `size` bytes of a live value; the rest are integers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            this_thread,
            any_processor,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    check_long(fd)?;
    RawFd::try_from(fd).map(received).map_err(io::Error::other)
}

/// `struct perf_event_attr`, in its first published size (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    config1: u64,
}

/// The instructions of the seccomp filter of this number that task `pid` has, which we have stopped: 0 is the oldest. Nothing
/// when there is none.
pub(crate) fn seccomp_filter(pid: i32, number: usize) -> io::Result<Option<Vec<u8>>> {
    const GET_FILTER: libc::c_long = 0x420c;
    // SAFETY: without a place to write to, the kernel answers the count of instructions.
    let count = unsafe { libc::syscall(libc::SYS_ptrace, GET_FILTER, pid, number, 0) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        // EINVAL: it runs under no filter at all.
        let none = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL));
        return if none { Ok(None) } else { Err(error) };
    };
    let mut program = vec![0_u8; count * size_of::<libc::sock_filter>()];
    // SAFETY: the task is stopped, so that its filters are those that were counted, and there is room for as many.
    check_long(unsafe { libc::syscall(libc::SYS_ptrace, GET_FILTER, pid, number, program.as_mut_ptr()) })?;
    Ok(Some(program))
}

/// With which flags it was added, as far as the kernel tells: `SECCOMP_FILTER_FLAG_LOG`. Kernels before 4.16 tell of none.
pub(crate) fn seccomp_flags(pid: i32, number: usize) -> io::Result<u64> {
    const GET_METADATA: libc::c_long = 0x420d;
    let mut metadata = [number as u64, 0];
    let size = size_of_val(&metadata);
    // SAFETY: the kernel writes no more than the size that it is told.
    let told = unsafe { libc::syscall(libc::SYS_ptrace, GET_METADATA, pid, size, metadata.as_mut_ptr()) };
    match check_long(told) {
        Ok(()) => Ok(metadata[1]),
        Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_tells_how_it_went() {
        let parent = nix::unistd::getpid();
        let mut seen = parent;
        in_child(|| {
            seen = nix::unistd::getpid();
            Ok(())
        })
        .unwrap();
        assert_ne!(seen, parent);
        let error = in_child(|| Err(nix::errno::Errno::EPERM)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
