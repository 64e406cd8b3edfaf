//! Mappings of this process, in the words of the system calls.

use core::ffi::c_int;

use crate::sys;

pub(crate) const PAGE: u64 = 4096;

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// The same bits.
pub(crate) fn unsigned(value: isize) -> usize {
    usize::from_ne_bytes(value.to_ne_bytes())
}

/// The same bits.
pub(crate) fn signed(value: usize) -> isize {
    isize::from_ne_bytes(value.to_ne_bytes())
}

/// A flag or a number of C as an argument of a system call.
pub(crate) fn word(value: c_int) -> usize {
    // Negative ones (descriptor -1) keep their bits.
    unsigned(isize::try_from(value).unwrap_or(-1))
}

/// An address that a system call answered with; nothing when it failed.
pub(crate) fn address(result: isize) -> Option<usize> {
    (result != -1).then(|| unsigned(result))
}

pub(crate) fn map(
    address: usize,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
) -> Option<usize> {
    let (protection, flags) = (word(protection), word(flags));
    self::address(sys::call(libc::SYS_mmap, address, length, protection, flags, word(fd), 0))
}

pub(crate) fn map_shared(fd: c_int, length: usize) -> Option<usize> {
    map(0, length, READ_WRITE, libc::MAP_SHARED, fd)
}

/// Memory that is private, empty, and lies at `remainder` modulo `unit` (a power of two), without what was mapped to find
/// such a place.
pub(crate) fn map_at_remainder(
    length: usize,
    remainder: usize,
    unit: usize,
    protection: c_int,
    flags: c_int,
) -> Option<usize> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let whole = length.checked_add(unit)?;
    let place = map(0, whole, protection, flags, -1)?;
    let skipped = remainder.wrapping_sub(place) & (unit - 1);
    let start = place.checked_add(skipped)?;
    unmap(place, skipped);
    unmap(start.checked_add(length)?, unit - skipped);
    Some(start)
}

/// Memory to fill: [`map_at_remainder`], readable and writable.
pub(crate) fn map_private(length: usize, remainder: usize, unit: usize, reserve: bool) -> Option<usize> {
    let flags = if reserve { 0 } else { libc::MAP_NORESERVE };
    map_at_remainder(length, remainder, unit, READ_WRITE, flags)
}

pub(crate) fn unmap(address: usize, length: usize) {
    if address > 0 && length > 0 {
        sys::call(libc::SYS_munmap, address, length, 0, 0, 0, 0);
    }
}

/// Moves a mapping, in place of what is there.
pub(crate) fn move_to(from: usize, length: usize, to: usize, new_length: usize) -> bool {
    let flags = word(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    sys::call(libc::SYS_mremap, from, length, new_length, flags, to, 0) != -1
}

/// Makes a mapping larger where it lies.
pub(crate) fn grow(from: usize, length: usize, new_length: usize) -> bool {
    sys::call(libc::SYS_mremap, from, length, new_length, 0, 0, 0) != -1
}

pub(crate) fn protect(address: usize, length: usize, protection: c_int) -> bool {
    protection == READ_WRITE
        || sys::call(libc::SYS_mprotect, address, length, word(protection), 0, 0, 0) != -1
}

/// Gives up the content.
pub(crate) fn empty(address: usize, length: usize) -> bool {
    sys::call(libc::SYS_madvise, address, length, word(libc::MADV_DONTNEED), 0, 0, 0) != -1
}

/// Whether children inherit it.
pub(crate) fn inherit(address: usize, length: usize, inherited: bool) {
    let advice = if inherited { libc::MADV_DOFORK } else { libc::MADV_DONTFORK };
    sys::call(libc::SYS_madvise, address, length, word(advice), 0, 0, 0);
}

/// Lets pages be there, writable; what they have in them stays. Since Linux 5.14.
pub(crate) fn populate(address: usize, length: usize) -> bool {
    sys::call(libc::SYS_madvise, address, length, word(libc::MADV_POPULATE_WRITE), 0, 0, 0) != -1
}

/// Makes huge pages of what is there, as far as there is memory for them.
pub(crate) fn collapse(address: usize, length: usize) {
    sys::call(libc::SYS_madvise, address, length, word(libc::MADV_COLLAPSE), 0, 0, 0);
}

/// What `/proc/self/pagemap` says about pages, 512 at a time.
pub(crate) struct PageMap {
    fd: c_int,
    entries: [u64; 512],
}

impl PageMap {
    const POPULATED: u64 = 3 << 62; // present, or swapped

    pub(crate) fn open() -> Option<Self> {
        let path = c"/proc/self/pagemap".as_ptr() as usize;
        let flags = word(libc::O_RDONLY | libc::O_CLOEXEC);
        let fd = sys::call(libc::SYS_openat, word(libc::AT_FDCWD), path, flags, 0, 0, 0);
        Some(Self { fd: c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?, entries: [0; 512] })
    }

    /// Whether each of the pages from `address` on has content, at most 512 of them.
    pub(crate) fn populated(
        &mut self,
        address: usize,
        pages: usize,
    ) -> Option<impl Iterator<Item = bool> + '_> {
        let pages = pages.min(self.entries.len());
        let buffer = self.entries.as_mut_ptr() as usize;
        let offset = address / 4096 * 8;
        let count = sys::call(libc::SYS_pread64, word(self.fd), buffer, pages * 8, offset, 0, 0);
        if usize::try_from(count) != Ok(pages * 8) {
            return None;
        }
        Some(self.entries.iter().take(pages).map(|entry| entry & Self::POPULATED != 0))
    }
}

impl Drop for PageMap {
    fn drop(&mut self) {
        sys::call(libc::SYS_close, word(self.fd), 0, 0, 0, 0, 0);
    }
}
