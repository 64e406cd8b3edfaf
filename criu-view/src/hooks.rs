//! The functions of the C library that CRIU finds here first. Each does what its name says, but for what the engine wants
//! seen otherwise.
//!
//! Some of them take a variable number of arguments, which on this machine arrive where fixed ones would.

use core::ffi::{c_char, c_int, c_long, c_void};

use crate::memory::{unsigned, word};
use crate::premap::Request;
use crate::{family, premap, scan, serve, shared, smaps, sys};

fn int(result: isize) -> c_int {
    c_int::try_from(result).unwrap_or(-1)
}

/// `ioctl(2)`: a scan of page tables finds nothing in what is hidden.
#[no_mangle]
pub extern "C" fn ioctl(fd: c_int, request: u64, argument: *mut c_void) -> c_int {
    if request == scan::PAGEMAP_SCAN {
        let answer = sys::scan_argument(argument).and_then(|argument| scan::scan(fd, argument));
        if let Some(answer) = answer {
            return int(answer);
        }
    }
    let request = usize::try_from(request).unwrap_or(0);
    int(sys::call(libc::SYS_ioctl, word(fd), request, argument as usize, 0, 0, 0))
}

fn open_at(directory: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    let name = sys::text(path);
    if name == b"smaps" {
        if let Some(fd) = smaps::open(directory) {
            return int(fd);
        }
    } else if flags & libc::O_CREAT == 0 {
        shared::image_opened(name);
    }
    let (path, flags) = (path as usize, word(flags));
    int(sys::call(libc::SYS_openat, word(directory), path, flags, mode as usize, 0, 0))
}

/// `openat(2)`: see `smaps` and `shared`.
#[no_mangle]
pub extern "C" fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    open_at(directory, path, flags, mode)
}

/// `openat(2)` for large files, which all are here.
#[no_mangle]
pub extern "C" fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    open_at(directory, path, flags | libc::O_LARGEFILE, mode)
}

/// What a fortified program calls for `openat`.
#[no_mangle]
pub extern "C" fn __openat_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    open_at(directory, path, flags, 0)
}

/// What a fortified program calls for `openat64`.
#[no_mangle]
pub extern "C" fn __openat64_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    open_at(directory, path, flags | libc::O_LARGEFILE, 0)
}

fn seek(fd: c_int, offset: i64, whence: c_int) -> i64 {
    if whence == libc::SEEK_DATA && shared::is_hidden(fd) {
        return sys::fail(libc::ENXIO) as i64;
    }
    let offset = unsigned(isize::try_from(offset).unwrap_or(-1));
    sys::call(libc::SYS_lseek, word(fd), offset, word(whence), 0, 0, 0) as i64
}

/// `lseek(2)`: a file that is hidden has no content.
#[no_mangle]
pub extern "C" fn lseek(fd: c_int, offset: i64, whence: c_int) -> i64 {
    seek(fd, offset, whence)
}

/// `lseek(2)` for large files, which all are here.
#[no_mangle]
pub extern "C" fn lseek64(fd: c_int, offset: i64, whence: c_int) -> i64 {
    seek(fd, offset, whence)
}

/// `pread(2)` for large files, which all are here: page tables, read where the kernel cannot scan them, are empty in what
/// is hidden.
#[no_mangle]
pub extern "C" fn pread64(fd: c_int, buffer: *mut c_void, length: usize, offset: i64) -> isize {
    let from = unsigned(isize::try_from(offset).unwrap_or(-1));
    let count = sys::call(libc::SYS_pread64, word(fd), buffer as usize, length, from, 0, 0);
    scan::blank(fd, buffer as usize, count, from);
    count
}

fn map(request: Request) -> *mut c_void {
    premap::map(request).unwrap_or_else(|| premap::really(request)) as *mut c_void
}

/// `mmap(2)`: see `premap`.
#[no_mangle]
pub extern "C" fn mmap(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: u64,
) -> *mut c_void {
    map(Request { address: address as usize, length, protection, flags, fd, offset })
}

/// `mmap(2)` for large files, which all are here.
#[no_mangle]
pub extern "C" fn mmap64(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: u64,
) -> *mut c_void {
    map(Request { address: address as usize, length, protection, flags, fd, offset })
}

/// `mremap(2)`: see `premap`.
#[no_mangle]
pub extern "C" fn mremap(
    old: *mut c_void,
    old_length: usize,
    new_length: usize,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    let (old, new) = (old as usize, new as usize);
    let inherited =
        if old_length == new_length { premap::inherit(old, old_length, flags, new) } else { None };
    let really = || sys::call(libc::SYS_mremap, old, old_length, new_length, word(flags), new, 0);
    inherited.unwrap_or_else(really) as *mut c_void
}

/// `madvise(2)`: what is filled stays.
#[no_mangle]
pub extern "C" fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int {
    if advice == libc::MADV_DONTNEED && premap::is_filled(address as usize, length) {
        return 0;
    }
    int(sys::call(libc::SYS_madvise, address as usize, length, word(advice), 0, 0, 0))
}

/// `memfd_create(2)`: the last one is remembered.
#[no_mangle]
pub extern "C" fn memfd_create(name: *const c_char, flags: u32) -> c_int {
    let fd = sys::call(libc::SYS_memfd_create, name as usize, flags as usize, 0, 0, 0, 0);
    shared::made(fd);
    int(fd)
}

/// `recv(2)`: while CRIU waits for a request, commands are served.
#[no_mangle]
pub extern "C" fn recv(fd: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> isize {
    serve::until_readable(fd);
    sys::call(libc::SYS_recvfrom, word(fd), buffer as usize, length, word(flags), 0, 0)
}

/// `syscall(2)`: the processes that CRIU makes get their own areas alone.
#[no_mangle]
pub extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let cloned = if number == libc::SYS_clone3 { family::clone(a, b) } else { None };
    cloned.unwrap_or_else(|| sys::call(number, a, b, c, d, e, f)) as c_long
}
