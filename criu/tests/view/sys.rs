//! What the process under test cannot do without `unsafe`.

use std::num::NonZeroUsize;

use nix::sys::mman::{madvise, mmap_anonymous, MapFlags, MmapAdvise, ProtFlags};
use nix::unistd::ForkResult;

/// New memory, for as long as the process lives.
pub(crate) fn map(size: usize, shared: bool) -> &'static mut [u8] {
    let flags = if shared { MapFlags::MAP_SHARED } else { MapFlags::MAP_PRIVATE };
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: nothing is mapped over.
    let place = unsafe { mmap_anonymous(None, NonZeroUsize::new(size).unwrap(), protection, flags) };
    // SAFETY: the memory was mapped just now, for nobody else, and is never unmapped.
    unsafe { std::slice::from_raw_parts_mut(place.unwrap().cast().as_ptr(), size) }
}

/// Empties memory.
pub(crate) fn give_up(memory: &mut [u8]) {
    let place = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: zeros are as good as any bytes.
    unsafe { madvise(place, memory.len(), MmapAdvise::MADV_DONTNEED) }.unwrap();
}

/// Whether this is the new child.
pub(crate) fn fork() -> bool {
    // SAFETY: the program has one thread.
    matches!(unsafe { nix::unistd::fork() }.unwrap(), ForkResult::Child)
}
