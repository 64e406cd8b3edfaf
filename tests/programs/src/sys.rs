//! The programs' only unsafe code: mappings, and what is read and written in them; fork.
//!
//! A mapping belongs to one value, so that nothing is used after it was unmapped. Two threads may write one mapping: they
//! write different pages.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{self, MRemapFlags, MapFlags, MmapAdvise, ProtFlags};
use nix::unistd::{fork, ForkResult};

use crate::pattern::{Page, PAGE, WORDS};

/// Pages at an address. They are unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<c_void>,
    pages: usize,
}

// SAFETY: an address means the same in every thread, and access is by whole pages copied in and out.
unsafe impl Send for Mapping {}
// SAFETY: as above; who writes a page while another reads it may confuse that reader only.
unsafe impl Sync for Mapping {}

/// What a mapping is of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Memory of this process alone.
    Private,
    /// The same, of pages that were set aside as huge ones.
    Hugetlb,
    /// Memory shared with the processes that are forked later.
    Shared,
    /// A file, shared.
    File(BorrowedFd<'a>),
    /// A new segment of System V.
    Segment,
    /// Addresses alone, which nobody may touch.
    Reserved,
}

impl Mapping {
    /// Maps `pages` pages somewhere.
    pub(crate) fn new(source: Source<'_>, pages: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(pages * PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let anonymous = |protection, flags| {
            // SAFETY: the kernel chooses an address where nothing is.
            unsafe { mman::mmap_anonymous(None, length, protection, flags) }
        };
        let address = match source {
            Source::Private => anonymous(both, MapFlags::MAP_PRIVATE)?,
            Source::Hugetlb => anonymous(both, MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB)?,
            Source::Shared => anonymous(both, MapFlags::MAP_SHARED)?,
            Source::Reserved => anonymous(ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)?,
            Source::File(file) => {
                // SAFETY: as above.
                unsafe { mman::mmap(None, length, both, MapFlags::MAP_SHARED, file, 0) }?
            }
            Source::Segment => segment(length)?,
        };
        Ok(Self { address, pages })
    }

    /// Its length.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> usize {
        self.address.as_ptr().addr()
    }

    /// The address of a page.
    pub(crate) fn address_of(&self, page: usize) -> usize {
        self.start() + page * PAGE
    }

    fn pointer(&self, page: usize) -> NonNull<c_void> {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page is inside the mapping.
        unsafe { self.address.byte_add(page * PAGE) }
    }

    /// Writes a page.
    pub(crate) fn write(&self, page: usize, content: &Page) {
        // SAFETY: the page is mapped, and aligned as pages are.
        unsafe { self.pointer(page).cast::<Page>().write(*content) }
    }

    /// Reads a page.
    pub(crate) fn read(&self, page: usize) -> Page {
        // SAFETY: as above; any bytes are numbers.
        unsafe { self.pointer(page).cast::<Page>().read() }
    }

    /// Reads one word of a page, and no more of it.
    pub(crate) fn word(&self, page: usize, word: usize) -> u64 {
        let word = word % WORDS;
        // SAFETY: as above; the word is inside the page.
        unsafe { self.pointer(page).cast::<u64>().add(word).read_volatile() }
    }

    /// Writes one word of a page, and no more of it.
    pub(crate) fn set_word(&self, page: usize, word: usize, value: u64) {
        let word = word % WORDS;
        // SAFETY: as above.
        unsafe { self.pointer(page).cast::<u64>().add(word).write_volatile(value) }
    }

    /// Says how some of its pages may be used.
    pub(crate) fn protect(&self, pages: &Range<usize>, protection: ProtFlags) -> io::Result<()> {
        // SAFETY: the pages are ours; who touches one that is protected dies of it, which is no harm to memory.
        Ok(unsafe { mman::mprotect(self.pointer(pages.start), pages.len() * PAGE, protection) }?)
    }

    /// Gives the kernel advice about some of its pages.
    pub(crate) fn advise(&self, pages: &Range<usize>, advice: MmapAdvise) -> io::Result<()> {
        // SAFETY: the pages are ours, and nobody holds a reference into them.
        Ok(unsafe { mman::madvise(self.pointer(pages.start), pages.len() * PAGE, advice) }?)
    }

    /// Whether it is one mapping to the kernel too. Grown by a page that is taken back, if it can be: the kernel refuses what
    /// lies in several mappings, before it does anything.
    pub(crate) fn is_one(&mut self) -> io::Result<bool> {
        match self.resize(self.pages + 1, MRemapFlags::empty()) {
            Ok(()) => self.shrink(self.pages - 1).map(|()| true),
            Err(Errno::EFAULT) => Ok(false),
            Err(_) => Ok(true),
        }
    }

    /// Makes it longer, elsewhere if need be. One that [is one](Self::is_one) only.
    pub(crate) fn grow(&mut self, pages: usize) -> io::Result<()> {
        Ok(self.resize(pages, MRemapFlags::MREMAP_MAYMOVE)?)
    }

    fn resize(&mut self, pages: usize, flags: MRemapFlags) -> Result<(), Errno> {
        let (old, new) = (self.pages * PAGE, pages * PAGE);
        // SAFETY: the old place is ours, and a new one is of the kernel's choice.
        self.address = unsafe { mman::mremap(self.address, old, new, flags, None) }?;
        self.pages = pages;
        Ok(())
    }

    /// Moves it to another place. One that [is one](Self::is_one) only.
    pub(crate) fn shift(&mut self) -> io::Result<()> {
        let place = Self::new(Source::Reserved, self.pages)?;
        let (length, flags) = (self.pages * PAGE, MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED);
        // SAFETY: both places are ours.
        let moved = unsafe { mman::mremap(self.address, length, length, flags, Some(place.address)) };
        // What was reserved is ours no more, or there is a hole by now that another thread may have filled.
        std::mem::forget(place);
        self.address = moved?;
        Ok(())
    }

    /// Unmaps what is beyond `pages`.
    pub(crate) fn shrink(&mut self, pages: usize) -> io::Result<()> {
        drop(self.split_off(pages));
        Ok(())
    }

    /// Cuts it in two without the kernel's knowing; answers what begins at `page`.
    pub(crate) fn split_off(&mut self, page: usize) -> Self {
        let rest = Self { address: self.pointer(page), pages: self.pages - page };
        self.pages = page;
        rest
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.pages > 0 {
            // SAFETY: nobody else knows of it.
            let unmapped = unsafe { mman::munmap(self.address, self.pages * PAGE) };
            assert!(unmapped.is_ok(), "cannot unmap: {unmapped:?}");
        }
    }
}

/// Which lives until its IPC namespace ends.
fn segment(length: NonZeroUsize) -> io::Result<NonNull<c_void>> {
    // SAFETY: three numbers.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, length.get(), libc::IPC_CREAT | 0o600) };
    if id < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel chooses an address where nothing is.
    let address = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    match NonNull::new(address) {
        Some(address) if address.as_ptr().addr() != usize::MAX => Ok(address),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks. The child of a process with threads has this one only, and must need no lock that another holds; the C library
/// sees to its own.
pub(crate) fn fork_process() -> io::Result<ForkResult> {
    // SAFETY: callers hold the locks that the child needs.
    Ok(unsafe { fork() }?)
}

/// Gives every signal back what it does to a program that knows none: Rust's runtime has handlers of its own.
pub(crate) fn forget_signal_handlers() {
    use nix::sys::signal::{signal, SigHandler, Signal};
    for number in Signal::iterator() {
        // SAFETY: no handler is set, but one that is there taken away; those of SIGKILL and SIGSTOP are refused.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
    }
}
