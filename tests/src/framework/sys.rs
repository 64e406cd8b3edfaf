//! The framework's only unsafe code: what a child does between fork and exec, and two calls that nix lacks.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

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
