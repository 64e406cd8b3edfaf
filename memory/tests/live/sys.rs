//! What a program does to its memory, by address. All of these tests' `unsafe` is here.

pub(crate) const PAGE: usize = 4096;

pub(crate) const READ: i32 = libc::PROT_READ;
pub(crate) const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// New anonymous memory, at `at` if given, in place of what is there.
pub(crate) fn map(at: Option<usize>, length: usize) -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | at.map_or(0, |_| libc::MAP_FIXED);
    let hint = at.unwrap_or(0) as *mut libc::c_void;
    // SAFETY: replaces only what these tests have mapped themselves.
    let start = unsafe { libc::mmap(hint, length, READ_WRITE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    start as usize
}

/// New shared memory, of a file if given.
pub(crate) fn map_shared(file: Option<&std::fs::File>, length: usize) -> usize {
    use std::os::fd::AsRawFd;
    let flags = libc::MAP_SHARED | if file.is_some() { 0 } else { libc::MAP_ANONYMOUS };
    let file = file.map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: a new mapping at a place of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, READ_WRITE, flags, file, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    start as usize
}

/// A memfd of so many bytes.
pub(crate) fn memfd(name: &str, length: usize) -> std::fs::File {
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = std::fs::File::from(file);
    file.set_len(length as u64).unwrap();
    file
}

/// Takes pages of a file away.
pub(crate) fn punch(file: &std::fs::File, offset: usize, length: usize) {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, offset as u64, length as u64).unwrap();
}

pub(crate) fn unmap(start: usize, length: usize) {
    // SAFETY: only what these tests have mapped themselves, and do not use any more.
    assert_eq!(unsafe { libc::munmap(start as *mut libc::c_void, length) }, 0);
}

pub(crate) fn protect(start: usize, length: usize, protection: i32) {
    // SAFETY: only what these tests have mapped themselves.
    assert_eq!(unsafe { libc::mprotect(start as *mut libc::c_void, length, protection) }, 0);
}

/// The new start of memory that grows.
pub(crate) fn remap_or_error(start: usize, length: usize, new: usize) -> std::io::Result<usize> {
    // SAFETY: moves only what these tests have mapped themselves.
    let moved = unsafe { libc::mremap(start as *mut libc::c_void, length, new, libc::MREMAP_MAYMOVE) };
    if moved == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    Ok(moved as usize)
}

/// The new start; nothing where the kernel refuses (it moves no more than one mapping).
pub(crate) fn remap(start: usize, length: usize, new: usize, onto: Option<usize>) -> Option<usize> {
    let flags = libc::MREMAP_MAYMOVE | onto.map_or(0, |_| libc::MREMAP_FIXED);
    // SAFETY: moves and replaces only what these tests have mapped themselves.
    let moved = unsafe { libc::mremap(start as *mut libc::c_void, length, new, flags, onto.unwrap_or(0)) };
    (moved != libc::MAP_FAILED).then_some(moved as usize)
}

pub(crate) fn advise(start: usize, length: usize, advice: i32) {
    // SAFETY: only what these tests have mapped themselves. What a kernel does not know, it does not do.
    unsafe { libc::madvise(start as *mut libc::c_void, length, advice) };
}

pub(crate) fn put(address: usize, value: u64) {
    // SAFETY: in what these tests have mapped, writable.
    unsafe { (address as *mut u64).write_volatile(value) };
}

pub(crate) fn get(address: usize) -> u64 {
    // SAFETY: in what these tests have mapped.
    unsafe { (address as *const u64).read_volatile() }
}

/// The child's pid; zero in the child.
pub(crate) fn fork() -> i32 {
    // SAFETY: the child goes on with what its only thread owns.
    unsafe { libc::fork() }
}

/// Whether a child is over.
pub(crate) fn reap(child: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the status is live.
    (unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child).then_some(status)
}

pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: takes integers only.
    unsafe { libc::kill(pid, signal) };
}

/// Counts a signal; the handler's address for `sigaction`.
extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

pub(crate) static SIGNALS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Counts each `signal` from here on, calls restarted or not.
pub(crate) fn count_signals(signal: i32, restart: bool) {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(i32) as usize;
    action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
    // SAFETY: the action is live, its handler only counts.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

/// What is done on `signal`, as a number.
pub(crate) fn handler(signal: i32) -> usize {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the action is live.
    unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    action.sa_sigaction
}

pub(crate) fn ignore(signal: i32) {
    // SAFETY: no handler is run.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Who calls userfaultfd from here on is killed.
pub(crate) fn forbid_userfaultfd() {
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let op = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(libc::SYS_userfaultfd).unwrap();
    let mut filter =
        [op(0x20, 0, 0, 0), op(0x15, 0, 1, number), op(0x06, 0, 0, KILL_PROCESS), op(0x06, 0, 0, ALLOW)];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: takes integers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    const SET_FILTER: libc::c_long = 1;
    const ALL_THREADS: libc::c_long = 1;
    // SAFETY: the program is live and four long.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, SET_FILTER, ALL_THREADS, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Sleeps; whether a signal has ended that.
pub(crate) fn nap(microseconds: u64) -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: i64::try_from(microseconds * 1000).unwrap() };
    // SAFETY: the time is live; the rest is not asked for.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) != 0 }
}

/// For this thread.
pub(crate) fn block_signals() {
    // SAFETY: a signal set is plain bits.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: the set is live; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
}

/// A signal with its place in a queue, unlike those that `kill` sends; whether there was room.
pub(crate) fn queue(pid: i32, signal: i32) -> bool {
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    // SAFETY: the value is not looked at.
    unsafe { libc::sigqueue(pid, signal, value) == 0 }
}

/// Reads so many bytes of a file to an address; whether all came.
pub(crate) fn read_at(file: &std::fs::File, address: usize, length: usize, offset: usize) -> bool {
    use std::os::fd::AsRawFd;
    let offset = libc::off_t::try_from(offset).unwrap();
    // SAFETY: into what these tests have mapped, as long as that.
    let count = unsafe { libc::pread(file.as_raw_fd(), address as *mut libc::c_void, length, offset) };
    usize::try_from(count) == Ok(length)
}
