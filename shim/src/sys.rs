//! The system calls that no safe wrapper offers. All of this crate's `unsafe` is here, one expression wide.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// A descriptor that stands for process `pid`, closed on exec.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(adopt(fd))
}

/// Sends `signal` to the process that `pidfd` stands for, and to no other that got its number since.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null info asks for the one that kill(2) would send.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the size of the terminal behind the pty master `master`.
pub(crate) fn set_window_size(master: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` lives through the call and is what TIOCSWINSZ reads.
    let result = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets the reactor say when `fd` is ready.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Takes a descriptor that the kernel has just given to this process, and that nothing else knows of.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: by this function's contract the descriptor is open and has no other owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A mount of its own of the directory `path`, attached nowhere yet.
pub(crate) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: `path` lives through the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(adopt(fd))
}

/// Makes a mount that is attached nowhere read-only, and shows its owners through the mapping of a user namespace.
pub(crate) fn map_owners(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    let (here, size) = (c"".as_ptr(), size_of_val(&attributes));
    let (mount, attributes) = (mount.as_raw_fd(), &raw const attributes);
    // SAFETY: both pointers live through the call, and `size` is that of what the second points to.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, mount, here, libc::AT_EMPTY_PATH, attributes, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Attaches a mount to the directory `target`.
pub(crate) fn attach_mount(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let (target, here) = (c_path(target)?, c"");
    let (mount, here, at, flags) =
        (mount.as_raw_fd(), CStr::as_ptr(here), libc::AT_FDCWD, libc::MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: both paths live through the call.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, mount, here, at, target.as_ptr(), flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets a command run in a user namespace of its own, which maps nobody yet.
pub(crate) fn in_user_namespace(command: &mut Command) -> &mut Command {
    let enter = || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).map_err(io::Error::from);
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(enter) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_stands_for_its_process_alone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
        pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        child.wait().unwrap();
        let gone = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn there_is_no_pidfd_of_nobody() {
        assert_eq!(pidfd_open(i32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_pty_takes_a_size() {
        let pty = nix::pty::openpty(None, None).unwrap();
        set_window_size(&pty.master, 132, 43).unwrap();
        let output = std::process::Command::new("stty").arg("size").stdin(pty.slave).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "43 132");
    }
}
