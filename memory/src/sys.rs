//! The system calls that no safe wrapper offers. All of this crate's `unsafe` is here, one expression wide.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::mm::{MapFlags, ProtFlags};

use crate::PAGE_BYTES;

/// Registers of a stopped thread.
#[cfg(target_arch = "x86_64")]
pub(crate) type Registers = libc::user_regs_struct;

/// `struct pm_scan_arg` of `PAGEMAP_SCAN`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ScanArgument {
    pub(crate) size: u64,
    pub(crate) flags: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) walk_end: u64,
    pub(crate) vec: u64,
    pub(crate) vec_len: u64,
    pub(crate) max_pages: u64,
    pub(crate) inverted: u64,
    pub(crate) mask: u64,
    pub(crate) any_of: u64,
    pub(crate) returned: u64,
}

/// `struct page_region` of `PAGEMAP_SCAN`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) categories: u64,
}

/// Scans from `argument.start` on; says how many of `regions` it has filled, and in `argument.walk_end` how far it came.
pub(crate) fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    argument: &mut ScanArgument,
    regions: &mut [Region],
) -> io::Result<usize> {
    const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;
    argument.size = size_of::<ScanArgument>() as u64;
    // Nobody who wants to be told of nothing has an address for it.
    argument.vec = if regions.is_empty() { 0 } else { regions.as_mut_ptr() as u64 };
    argument.vec_len = regions.len() as u64;
    // SAFETY: the argument is live and laid out as the kernel's; it writes no more than `vec_len` regions.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut *argument) };
    usize::try_from(found).map_err(|_| io::Error::last_os_error())
}

/// `UFFDIO_API`, with these features.
pub(crate) fn uffd_api(uffd: BorrowedFd<'_>, features: u64) -> io::Result<()> {
    const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
    let mut argument: [u64; 3] = [0xaa, features, 0];
    // SAFETY: the argument is live and as long as `struct uffdio_api`.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_API, argument.as_mut_ptr()) })
}

/// `UFFDIO_REGISTER` for write-protection.
pub(crate) fn uffd_register(uffd: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
    const MODE_WP: u64 = 2;
    let mut argument: [u64; 4] = [start, end - start, MODE_WP, 0];
    // SAFETY: the argument is live and as long as `struct uffdio_register`.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_REGISTER, argument.as_mut_ptr()) })
}

/// `UFFDIO_WRITEPROTECT` of what is registered, holes too.
pub(crate) fn uffd_write_protect(uffd: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    const UFFDIO_WRITEPROTECT: libc::Ioctl = 0xc018_aa06_u32 as libc::Ioctl;
    const MODE_WP: u64 = 1;
    let mut argument: [u64; 3] = [start, end - start, MODE_WP];
    // SAFETY: the argument is live and as long as `struct uffdio_writeprotect`.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_WRITEPROTECT, argument.as_mut_ptr()) })
}

/// `UFFDIO_UNREGISTER`.
pub(crate) fn uffd_unregister(uffd: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    const UFFDIO_UNREGISTER: libc::Ioctl = 0x8010_aa01_u32 as libc::Ioctl;
    let mut argument: [u64; 2] = [start, end - start];
    // SAFETY: the argument is live and as long as `struct uffdio_range`.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_UNREGISTER, argument.as_mut_ptr()) })
}

/// `UFFDIO_WAKE`.
pub(crate) fn uffd_wake(uffd: BorrowedFd<'_>, start: u64, length: u64) -> io::Result<()> {
    const UFFDIO_WAKE: libc::Ioctl = 0x8010_aa02_u32 as libc::Ioctl;
    let mut argument: [u64; 2] = [start, length];
    // SAFETY: the argument is live and as long as `struct uffdio_range`.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_WAKE, argument.as_mut_ptr()) })
}

/// `UFFDIO_COPY` of whole pages to an address of the userfaultfd's process. How many bytes are there now, from the first on; an
/// error when none.
pub(crate) fn uffd_copy(uffd: BorrowedFd<'_>, to: u64, content: &[u8]) -> io::Result<usize> {
    const UFFDIO_COPY: libc::Ioctl = 0xc028_aa03_u32 as libc::Ioctl;
    let mut argument: [u64; 5] = [to, content.as_ptr() as u64, content.len() as u64, 0, 0];
    // SAFETY: the argument is live and as long as `struct uffdio_copy`; the kernel only reads the content, which is live.
    let done = check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_COPY, argument.as_mut_ptr()) });
    // Negative, that is huge, when nothing was copied.
    match (done, usize::try_from(argument[4]).unwrap_or(usize::MAX)) {
        (Ok(()), _) => Ok(content.len()),
        (Err(_), copied) if copied > 0 && copied < content.len() => Ok(copied),
        (Err(e), _) => Err(e),
    }
}

/// `UFFDIO_ZEROPAGE`.
pub(crate) fn uffd_zero(uffd: BorrowedFd<'_>, start: u64, length: u64) -> io::Result<()> {
    const UFFDIO_ZEROPAGE: libc::Ioctl = 0xc020_aa04_u32 as libc::Ioctl;
    let mut argument: [u64; 4] = [start, length, 0, 0];
    // SAFETY: the argument is live and as long as `struct uffdio_zeropage`.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_ZEROPAGE, argument.as_mut_ptr()) })
}

/// A descriptor that a userfaultfd has just told us of, and that is nobody else's.
pub(crate) fn received(number: i32) -> Option<OwnedFd> {
    // SAFETY: the kernel has made it for whoever reads the message.
    (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// `process_madvise(MADV_COLLAPSE)` of one span.
pub(crate) fn collapse(process: BorrowedFd<'_>, start: u64, length: u64) -> io::Result<()> {
    const MADV_COLLAPSE: libc::c_int = 25;
    let span: [u64; 2] = [start, length];
    // SAFETY: the kernel reads one `struct iovec`, two words; the addresses in it are another process's.
    let done = unsafe {
        libc::syscall(libc::SYS_process_madvise, process.as_raw_fd(), span.as_ptr(), 1, MADV_COLLAPSE, 0)
    };
    check_long(done)
}

/// Whether this kernel knows pages that are guards (`MADV_GUARD_INSTALL`), tried on a page of our own.
pub(crate) fn has_guards() -> bool {
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    let Ok(own) = OwnPages::new(1) else { return true };
    // SAFETY: the page is ours and is given back right after.
    unsafe { libc::madvise(own.0.cast(), PAGE_BYTES, MADV_GUARD_INSTALL) == 0 }
}

/// A file that we have mapped shared, to be looked at in page tables alone: it is never read through it.
#[derive(Debug)]
pub(crate) struct OwnMapping(*mut libc::c_void, usize);

// SAFETY: nobody reads or writes through the address, which means the same to every thread.
unsafe impl Send for OwnMapping {}

impl OwnMapping {
    pub(crate) fn new(file: &std::fs::File, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)
        }?;
        Ok(Self(at, length))
    }

    pub(crate) fn start(&self) -> u64 {
        self.0 as u64
    }

    /// Has pages in our page tables (`MADV_POPULATE_READ`, Linux 5.14).
    pub(crate) fn populate(&self, offset: u64, length: u64) -> io::Result<()> {
        const MADV_POPULATE_READ: libc::c_int = 22;
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.1 as u64);
        let (Ok(offset), Ok(length), true) = (usize::try_from(offset), usize::try_from(length), inside)
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: the address is inside of the mapping, as was just asked.
        let start = unsafe { self.0.byte_add(offset) };
        // SAFETY: changes our page tables alone.
        check(unsafe { libc::madvise(start, length, MADV_POPULATE_READ) })
    }
}

impl Drop for OwnMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody else has its address.
        let _ = unsafe { rustix::mm::munmap(self.0, self.1) };
    }
}

/// Anonymous pages of our own that are in no allocator's hands.
#[derive(Debug)]
pub(crate) struct OwnPages(*mut u8, usize);

impl OwnPages {
    pub(crate) fn new(pages: usize) -> io::Result<Self> {
        let length = pages * PAGE_BYTES;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        Ok(Self(at.cast(), length))
    }

    pub(crate) fn start(&self) -> u64 {
        self.0 as u64
    }

    pub(crate) fn write(&self, page: usize, value: u8) {
        assert!(page * PAGE_BYTES < self.1);
        // SAFETY: inside of the mapping, which nothing else refers to.
        unsafe { self.0.add(page * PAGE_BYTES).write_volatile(value) };
    }

    pub(crate) fn read(&self, page: usize) -> u8 {
        assert!(page * PAGE_BYTES < self.1);
        // SAFETY: inside of the mapping.
        unsafe { self.0.add(page * PAGE_BYTES).read_volatile() }
    }
}

impl Drop for OwnPages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody else has its address.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), self.1) };
    }
}

/// Forks a child that runs `child` and exits with what that returns.
///
/// `child` must only make system calls and touch memory that it already owns: other threads may have held locks.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the child does as said above, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = child();
            // SAFETY: never returns; no destructor of the parent's runs.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid),
    }
}

/// Blocks every signal for this thread while it lives.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub(crate) struct SignalsBlocked(libc::sigset_t);

#[cfg(target_arch = "x86_64")]
impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        // SAFETY: a signal set is plain bits.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        let mut before = all;
        // SAFETY: the set is live.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: both sets are live.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Self(before)
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set is live; the old one is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// In a process of its own: closes all descriptors but these, which need not be sorted.
#[cfg(target_arch = "x86_64")]
pub(crate) fn keep_only(descriptors: &mut [libc::c_int]) {
    descriptors.sort_unstable();
    let mut from: libc::c_uint = 0;
    for kept in descriptors.iter().map(|descriptor| descriptor.unsigned_abs()) {
        if kept > from {
            // SAFETY: what is closed has owners in the parent alone; the child drops none of them, and leaves by `_exit`.
            unsafe { libc::syscall(libc::SYS_close_range, from, kept - 1, 0) };
        }
        from = kept + 1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) };
}

/// In a process of its own with all signals blocked: lets it run before all others, and hear of each stop of what it traces.
#[cfg(target_arch = "x86_64")]
pub(crate) fn be_a_tracer() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter is live.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) } != 0 {
        // SAFETY: takes integers only. It may fail: then stops are longer on a busy machine.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    }
    // SAFETY: no handler is installed; the parent's may have asked for no word of stops.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    // SAFETY: takes nothing. What is sent to the parent's group or session is not meant for it.
    unsafe { libc::setsid() };
    be_the_last_to_be_killed();
}

/// By the kernel, out of memory. Not where the right to say so is missing.
#[cfg(target_arch = "x86_64")]
fn be_the_last_to_be_killed() {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, rustix::fs::Mode::empty());
    let _ = file.map(|file| rustix::io::write(file, b"-1000"));
}

/// Waits, with all signals blocked, until a child or a traced thread has stopped or ended, or for so long.
#[cfg(target_arch = "x86_64")]
pub(crate) fn wait_for_child(limit: std::time::Duration) {
    // SAFETY: a signal set is plain bits.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(0),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: set and time are live; what the signal says is not asked for.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
}

/// `ptrace` calls, by their numbers: their types in libc differ between C libraries.
#[cfg(target_arch = "x86_64")]
pub(crate) mod ptrace {
    use std::io;
    use std::mem::MaybeUninit;

    use super::{check_long, Registers};

    const CONT: u64 = 7;
    const GETREGS: u64 = 12;
    const SETREGS: u64 = 13;
    const DETACH: u64 = 17;
    const SYSCALL: u64 = 24;
    const SETOPTIONS: u64 = 0x4200;
    const SEIZE: u64 = 0x4206;
    const INTERRUPT: u64 = 0x4207;
    const GETSIGMASK: u64 = 0x420a;
    const SETSIGMASK: u64 = 0x420b;
    const GET_RSEQ_CONFIGURATION: u64 = 0x420f;
    pub(crate) const O_TRACESYSGOOD: u64 = 1;
    pub(crate) const O_SUSPEND_SECCOMP: u64 = 1 << 21;

    /// `struct ptrace_rseq_configuration`.
    #[repr(C)]
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Rseq {
        pub(crate) pointer: u64,
        pub(crate) size: u32,
        pub(crate) signature: u32,
        pub(crate) flags: u32,
        pad: u32,
    }

    fn integers(request: u64, thread: i32, address: u64, data: u64) -> io::Result<()> {
        // SAFETY: the requests that come here take integers only.
        check_long(unsafe { libc::syscall(libc::SYS_ptrace, request, thread, address, data) })
    }

    pub(crate) fn seize(thread: i32, options: u64) -> io::Result<()> {
        integers(SEIZE, thread, 0, options)
    }

    pub(crate) fn interrupt(thread: i32) -> io::Result<()> {
        integers(INTERRUPT, thread, 0, 0)
    }

    pub(crate) fn set_options(thread: i32, options: u64) -> io::Result<()> {
        integers(SETOPTIONS, thread, 0, options)
    }

    pub(crate) fn go_on(thread: i32, signal: i32) -> io::Result<()> {
        integers(CONT, thread, 0, signal.unsigned_abs().into())
    }

    pub(crate) fn go_to_call(thread: i32, signal: i32) -> io::Result<()> {
        integers(SYSCALL, thread, 0, signal.unsigned_abs().into())
    }

    pub(crate) fn detach(thread: i32) -> io::Result<()> {
        integers(DETACH, thread, 0, 0)
    }

    pub(crate) fn registers(thread: i32) -> io::Result<Registers> {
        let mut into = MaybeUninit::<Registers>::uninit();
        // SAFETY: the kernel fills one `user_regs_struct`.
        check_long(unsafe { libc::syscall(libc::SYS_ptrace, GETREGS, thread, 0, into.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded and filled it.
        Ok(unsafe { into.assume_init() })
    }

    pub(crate) fn set_registers(thread: i32, from: &Registers) -> io::Result<()> {
        // SAFETY: the kernel reads one `user_regs_struct`.
        check_long(unsafe { libc::syscall(libc::SYS_ptrace, SETREGS, thread, 0, &raw const *from) })
    }

    pub(crate) fn signal_mask(thread: i32) -> io::Result<u64> {
        let mut mask = 0_u64;
        // SAFETY: the kernel writes the eight bytes that it is told of.
        check_long(unsafe { libc::syscall(libc::SYS_ptrace, GETSIGMASK, thread, 8, &raw mut mask) })?;
        Ok(mask)
    }

    pub(crate) fn set_signal_mask(thread: i32, mask: u64) -> io::Result<()> {
        // SAFETY: the kernel reads the eight bytes that it is told of.
        check_long(unsafe { libc::syscall(libc::SYS_ptrace, SETSIGMASK, thread, 8, &raw const mask) })
    }

    pub(crate) fn rseq(thread: i32) -> io::Result<Rseq> {
        let mut into = Rseq::default();
        let size = size_of::<Rseq>();
        // SAFETY: the kernel writes no more than the size that it is told.
        check_long(unsafe {
            libc::syscall(libc::SYS_ptrace, GET_RSEQ_CONFIGURATION, thread, size, &raw mut into)
        })?;
        Ok(into)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    check_long(result.into())
}

fn check_long(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
