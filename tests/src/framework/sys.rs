//! The framework's only unsafe code: what a child does between fork and exec, and three calls that nix lacks.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `PTRACE_SECCOMP_GET_FILTER`, which libc has not.
const GET_FILTER: libc::c_uint = 0x420c;

/// `CLOSE_RANGE_CLOEXEC`, which libc has as an unsigned number.
const CLOSE_ON_EXEC: libc::c_int = 4;

/// Lets the child of `command` enter the cgroups whose `cgroup.procs` are given, and start with descriptors 0, 1 and 2 only:
/// one that slips into a container makes CRIU refuse to dump it.
pub(crate) fn before_exec(command: &mut Command, cgroup_procs: Vec<File>) {
    let hook = move || {
        for mut file in &cgroup_procs {
            file.write_all(b"0")?;
        }
        close_on_exec_above_stderr()
    };
    // SAFETY: the hook makes write and close_range system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(hook) };
}

fn close_on_exec_above_stderr() -> io::Result<()> {
    // SAFETY: close_range takes three integers and, with this flag, closes nothing now.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, CLOSE_ON_EXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether overlayfs marked the directory `path` of an upper layer as opaque: nothing of the lower layer shows through.
pub(crate) fn is_opaque_directory(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = [0_u8; 4];
    let name = c"trusted.overlay.opaque";
    // SAFETY: both strings end in NUL, and the kernel writes at most value.len() bytes into value.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    Ok(length == 1 && value[0] == b'y')
}

/// The program of the seccomp filter of this number that the task `pid` has, which we have stopped: 0 is the one that it was
/// given first. Nothing when there is none.
pub(crate) fn seccomp_filter(pid: i32, number: usize) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: without a place to write to, the kernel answers the count of instructions.
    let count = unsafe { libc::ptrace(GET_FILTER, pid, number, std::ptr::null_mut::<u8>()) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) { Ok(None) } else { Err(error) };
    };
    let mut program = vec![0_u8; count * size_of::<libc::sock_filter>()];
    // SAFETY: the task is stopped, so that its filters are those that were counted, and there is room for as many.
    let written = unsafe { libc::ptrace(GET_FILTER, pid, number, program.as_mut_ptr()) };
    if usize::try_from(written) != Ok(count) {
        return Err(io::Error::last_os_error());
    }
    Ok(Some(program))
}
