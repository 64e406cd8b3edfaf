//! System calls and foreign memory: all of this library's `unsafe` is here.
//!
//! Everything goes past the C library's own functions, whose names this library takes over.

use core::ffi::{c_char, c_int, c_long, c_void, CStr};
use core::sync::atomic::AtomicU64;

use crate::scan::Scan;

// By name, so that the loader readies it before this library's constructor runs.
#[link(name = "c")]
extern "C" {}

/// Makes a system call; sets `errno` and answers -1 when it fails, as the C library's functions do.
pub(crate) fn call(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: c_long;
    // SAFETY: what the arguments point to is the caller's, who hands on what CRIU asked for or mappings of its own; a child
    // that comes back from this has a copy of everything.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) {
        return fail(c_int::try_from(-result).unwrap_or(libc::EIO));
    }
    isize::try_from(result).unwrap_or(-1)
}

/// Sets `errno`, and answers what a C function answers then.
pub(crate) fn fail(error: c_int) -> isize {
    // SAFETY: the C library gives each thread a place for it.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// The error of the last call.
pub(crate) fn error() -> c_int {
    // SAFETY: the C library gives each thread a place for it.
    unsafe { *libc::__errno_location() }
}

/// This process's number in its pid namespace.
pub(crate) fn process() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

/// The value of an environment variable.
pub(crate) fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the name ends with a zero.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: the C library answers null or a string that ends with a zero; nobody changes it before `main`.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// The words at an address that CRIU handed over, aligned as its own.
pub(crate) fn lent<'a>(address: usize, count: usize) -> &'a [u64] {
    if address == 0 || address % align_of::<u64>() != 0 {
        return &[];
    }
    // SAFETY: the caller has heard from CRIU how many there are, and CRIU lends them for the call.
    unsafe { core::slice::from_raw_parts(address as *const u64, count) }
}

/// The words at an address that CRIU handed over for an answer, aligned as its own.
pub(crate) fn lent_answer<'a>(address: usize, count: usize) -> &'a mut [u64] {
    if address == 0 || address % align_of::<u64>() != 0 {
        return &mut [];
    }
    // SAFETY: the kernel has just written as many words there, and CRIU lends them for the call.
    unsafe { core::slice::from_raw_parts_mut(address as *mut u64, count) }
}

/// The number at an address that CRIU handed over.
pub(crate) fn lent_number(address: usize) -> i32 {
    if address == 0 || address % align_of::<i32>() != 0 {
        return 0;
    }
    // SAFETY: CRIU lends it for the call.
    unsafe { *(address as *const i32) }
}

/// A string that CRIU handed over; empty for none.
pub(crate) fn text<'a>(string: *const c_char) -> &'a [u8] {
    if string.is_null() {
        return b"";
    }
    // SAFETY: CRIU hands over strings that end with a zero and outlive the call.
    unsafe { CStr::from_ptr(string) }.to_bytes()
}

/// The argument of a scan of page tables.
pub(crate) fn scan_argument<'a>(argument: *mut c_void) -> Option<&'a mut Scan> {
    // SAFETY: the request's number holds the size of this structure, and CRIU lends it for the call.
    unsafe { argument.cast::<Scan>().as_mut() }
}

/// `count` words that are mapped at `address` for as long as the process lives.
pub(crate) fn words(address: usize, count: usize) -> &'static [AtomicU64] {
    // SAFETY: the caller has mapped them, shared and writable, and never unmaps them.
    unsafe { core::slice::from_raw_parts(address as *const AtomicU64, count) }
}

/// `count` bytes that are mapped at `address` for as long as the answer is used.
pub(crate) fn bytes<'a>(address: usize, count: usize) -> &'a [u8] {
    // SAFETY: the caller has mapped them, and unmaps them after the last use.
    unsafe { core::slice::from_raw_parts(address as *const u8, count) }
}

/// The `fstat` of a descriptor: its device and inode.
pub(crate) fn identity(fd: c_int) -> Option<(u64, u64)> {
    // SAFETY: all zeros are a valid value of this structure.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the pointer is to a live value.
    (unsafe { libc::fstat(fd, &raw mut status) } == 0).then_some((status.st_dev, status.st_ino))
}

/// The size of the file behind a descriptor.
pub(crate) fn size(fd: c_int) -> Option<u64> {
    // SAFETY: all zeros are a valid value of this structure.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the pointer is to a live value.
    let result = unsafe { libc::fstat(fd, &raw mut status) };
    (result == 0).then(|| u64::try_from(status.st_size).unwrap_or(0))
}

/// Copies memory of this process.
pub(crate) fn copy(from: usize, to: usize, length: usize) {
    // SAFETY: both are mapped, of the same library's making, and apart.
    unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, length) };
}

/// Waits until one of two descriptors can be read; answers which.
pub(crate) fn readable(first: c_int, second: c_int) -> Option<(bool, bool)> {
    let wait = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut both = [wait(first), wait(second)];
    // SAFETY: the pointer is to two live values.
    let count = unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
    (count > 0).then_some((both[0].revents != 0, both[1].revents != 0))
}

/// Reads a message of words; answers its length in bytes.
pub(crate) fn receive(fd: c_int, message: &mut [u64; 4]) -> isize {
    // SAFETY: the pointer is to as many bytes as are told.
    unsafe { libc::read(fd, message.as_mut_ptr().cast(), size_of_val(message)) }
}

/// Sends a message of words, without a signal when nobody listens.
pub(crate) fn send(fd: c_int, message: &[u64; 4]) {
    let (address, length) = (message.as_ptr() as usize, size_of_val(message));
    let fd = usize::try_from(fd).unwrap_or(usize::MAX);
    let flags = usize::try_from(libc::MSG_NOSIGNAL).unwrap_or(0);
    call(libc::SYS_sendto, fd, address, length, flags, 0, 0);
}

/// A constructor: the loader calls [`crate::start::start`] before CRIU's `main`.
#[used]
#[link_section = ".init_array"]
static START: extern "C" fn() = crate::start::start;

/// Nothing here panics; the language wants to know all the same.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: takes nothing.
    unsafe { libc::abort() }
}
