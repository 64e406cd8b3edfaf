//! What the process under test cannot do without `unsafe`.

use std::num::NonZeroUsize;

use nix::sys::mman::{
    madvise, mmap_anonymous, mprotect, mremap, munmap, MRemapFlags, MapFlags, MmapAdvise, ProtFlags,
};
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

/// Makes memory readable only. It must not be written to any more.
pub(crate) fn protect(memory: &mut [u8]) {
    let place = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: who writes to it dies, which is what a test wants to see.
    unsafe { mprotect(place, memory.len(), ProtFlags::PROT_READ) }.unwrap();
}

/// Gives up a part of what was mapped, which must not be used any more.
pub(crate) fn unmap(memory: &mut [u8]) {
    let place = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: nobody uses it any more.
    unsafe { munmap(place, memory.len()) }.unwrap();
}

/// Makes what was mapped longer, where it is.
pub(crate) fn grow(memory: &mut [u8], length: usize) -> &'static mut [u8] {
    let place = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: it does not move.
    let place = unsafe { mremap(place, memory.len(), length, MRemapFlags::empty(), None) }.unwrap();
    // SAFETY: as many bytes are mapped there now.
    unsafe { std::slice::from_raw_parts_mut(place.cast().as_ptr(), length) }
}
