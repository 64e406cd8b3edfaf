//! A userfaultfd of our own.

use std::os::fd::{FromRawFd, OwnedFd};

/// Fork, remap, remove and unmap are told of.
const FEATURES: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;

/// Over this range; nothing where the kernel has none for us.
pub(crate) fn open(start: usize, length: usize) -> Option<OwnedFd> {
    // SAFETY: takes an integer.
    let number = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    let number = i32::try_from(number).ok().filter(|number| *number >= 0)?;
    // SAFETY: it is new.
    let uffd = unsafe { OwnedFd::from_raw_fd(number) };
    let mut api = [0xaa_u64, FEATURES, 0];
    // SAFETY: as long as `struct uffdio_api`.
    let api = unsafe { libc::ioctl(number, 0xc018_aa3f_u32 as libc::Ioctl, api.as_mut_ptr()) };
    let mut register = [start as u64, length as u64, 1, 0];
    // SAFETY: as long as `struct uffdio_register`.
    let registered = unsafe { libc::ioctl(number, 0xc020_aa00_u32 as libc::Ioctl, register.as_mut_ptr()) };
    (api == 0 && registered == 0).then_some(uffd)
}

/// Leaves without anything that a parent would do.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}
