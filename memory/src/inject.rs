//! A userfaultfd of another process's memory, out of that process.
//!
//! Only a process itself can open one for its memory. So all its threads are stopped for a fraction of a millisecond, one is made
//! to call `userfaultfd` through the `syscall` instruction of its vdso, and nothing else of it changes.
//!
//! That is done by a child of ours that is made for it and blocks all signals: should we be killed meanwhile, it puts the process
//! back all the same. When it exits, the kernel lets go of whatever it still traces.
//!
//! Only SIGKILL for that child itself harms the process, if it comes while one thread has registers that are not its own: for two
//! system calls, some tens of microseconds of each [`inject`]. From there the thread would run on in the vdso, and crash. Nothing
//! undoes that: a tracer's end lets a thread go with the registers that it has, and no state of it makes an own call of the
//! thread out of ours. So nothing sends it: the child has a session of its own, lives for a millisecond, and is the last that the
//! kernel kills when memory runs out. [`halted`] changes no register.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::error::InjectFailure;
use crate::Error;

#[cfg(target_arch = "x86_64")]
mod call;
#[cfg(target_arch = "x86_64")]
mod courier;
#[cfg(target_arch = "x86_64")]
mod halt;

/// Attempts at a process that is busy, and the first of the pauses between them; each is twice the one before.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

/// What came out of a process.
#[derive(Debug)]
pub(crate) struct Injected {
    /// Of the process's memory; not yet told its features.
    pub(crate) uffd: OwnedFd,
    /// How long any of its threads was stopped.
    pub(crate) stop: Duration,
}

/// Opens a userfaultfd for the memory of process `host`, which must be running.
pub(crate) fn inject(host: i32) -> Result<Injected, Error> {
    patiently(|| once(host))
}

/// Again and again while the process is busy, within limits.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for turn in 1..ATTEMPTS {
        let result = attempt();
        if !matches!(result, Err(Error::Inject { reason: InjectFailure::Busy, .. })) {
            return result;
        }
        std::thread::sleep(PAUSE * (1 << (turn - 1)));
    }
    attempt()
}

/// Stops all threads of process `host` while `work` is done; for how long.
#[cfg(target_arch = "x86_64")]
pub(crate) fn halted<T>(host: i32, work: impl Fn() -> T) -> Result<(T, Duration), Error> {
    patiently(|| courier::halted(host, &work))
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn halted<T>(host: i32, _: impl Fn() -> T) -> Result<(T, Duration), Error> {
    foreign(host)
}

#[cfg(target_arch = "x86_64")]
fn once(host: i32) -> Result<Injected, Error> {
    let syscall = syscall_instruction(host)
        .map_err(|source| failure(host, InjectFailure::Gone, source))?
        .ok_or_else(|| failure(host, InjectFailure::Foreign, io::ErrorKind::Unsupported.into()))?;
    courier::send(host, syscall)
}

#[cfg(not(target_arch = "x86_64"))]
fn once(host: i32) -> Result<Injected, Error> {
    foreign(host)
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign<T>(host: i32) -> Result<T, Error> {
    Err(failure(host, InjectFailure::Foreign, io::ErrorKind::Unsupported.into()))
}

fn failure(process: i32, reason: InjectFailure, source: io::Error) -> Error {
    Error::Inject { process, reason, source }
}

/// Where in its vdso the process has a `syscall` instruction.
#[cfg(target_arch = "x86_64")]
fn syscall_instruction(host: i32) -> io::Result<Option<u64>> {
    use std::os::unix::fs::FileExt;
    const LARGEST: usize = 64 << 10;
    let Some(vdso) = crate::mappings::maps(host)?.into_iter().find(|m| m.name == "[vdso]") else {
        return Ok(None);
    };
    let mut code = vec![0; usize::try_from(vdso.end - vdso.start).unwrap_or(LARGEST).min(LARGEST)];
    std::fs::File::open(format!("/proc/{host}/mem"))?.read_exact_at(&mut code, vdso.start)?;
    let at = code.windows(2).position(|two| two == call::SYSCALL);
    Ok(at.map(|at| vdso.start + at as u64))
}
