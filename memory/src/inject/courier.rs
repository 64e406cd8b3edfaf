//! The child that stops a process for us: what it is told, and what it brings back.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, WaitOptions};

use super::call::{gone, Failed, Puppet};
use super::halt::{Halted, MOST};
use super::{failure, Injected};
use crate::error::InjectFailure;
use crate::sys::{self, SignalsBlocked};
use crate::Error;

/// For a child that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `UFFD_USER_MODE_ONLY`: allowed to everybody; with asynchronous write-protection the kernel's own writes are seen anyway.
const UFFD_USER_MODE_ONLY: u64 = 1;

/// All that the child needs, made before the fork.
struct Errand {
    process: OwnedFd,
    tasks: CString,
    memory: File,
    threads: Vec<i32>,
}

impl Errand {
    fn new(host: i32) -> Result<Self, Error> {
        let gone = |e: io::Error| failure(host, InjectFailure::Gone, e);
        let pid = Pid::from_raw(host).ok_or_else(|| gone(io::ErrorKind::InvalidInput.into()))?;
        Ok(Self {
            process: rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| gone(e.into()))?,
            tasks: CString::new(format!("/proc/{host}/task")).map_err(|e| gone(e.into()))?,
            memory: File::open(format!("/proc/{host}/mem")).map_err(gone)?,
            threads: Vec::with_capacity(MOST),
        })
    }
}

/// A child at work, and our end of the line to it. Dropped, it is told to stop, and waited for.
struct Courier {
    pid: Pid,
    line: Option<OwnedFd>,
}

impl Courier {
    fn start(errand: &Errand, work: impl FnOnce(BorrowedFd<'_>) -> i32) -> Result<Self, Error> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(Error::io("make a pair of sockets"))?;
        set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE)).map_err(Error::io("limit a wait"))?;
        let mut kept = [&theirs, &errand.process].map(AsRawFd::as_raw_fd).to_vec();
        kept.push(errand.memory.as_raw_fd());
        let blocked = SignalsBlocked::new();
        let pid = sys::fork(|| {
            // Else it would not see our end, and others would not see that of ours.
            sys::keep_only(&mut kept);
            sys::be_a_tracer();
            work(theirs.as_fd())
        })
        .map_err(Error::io("fork"))?;
        drop(blocked);
        let pid = Pid::from_raw(pid).ok_or_else(|| Error::io("fork")(io::ErrorKind::InvalidInput))?;
        Ok(Self { pid, line: Some(ours) })
    }

    /// Its next message.
    fn hear(&self) -> io::Result<Message> {
        let line = self.line.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut bytes = [0; 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::io::retry_on_intr(|| {
            let into = &mut [IoSliceMut::new(&mut bytes)];
            recvmsg(line, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        if got.bytes != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(Message::from_bytes(bytes, descriptor))
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // It is a child of ours that nobody else waits for: the pid is its.
        self.line = None;
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG) {
            if Instant::now() > deadline {
                return outlast(self.pid);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Killed, it could not put back what it has changed; it ends when the process that it is in goes on.
fn outlast(child: Pid) {
    tracing::warn!(
        child = child.as_raw_pid(),
        "a process does not go on while it is being tracked: is it frozen?"
    );
    let wait = move || {
        let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    };
    let _ = std::thread::Builder::new().name("courier".into()).spawn(wait);
}

/// What a child says: how it went, and for how long the process was stopped.
struct Message {
    failed: Option<Failed>,
    stop: Duration,
    descriptor: Option<OwnedFd>,
}

const REASONS: [InjectFailure; 6] = [
    InjectFailure::Trace,
    InjectFailure::Busy,
    InjectFailure::Foreign,
    InjectFailure::Call,
    InjectFailure::Take,
    InjectFailure::Gone,
];

impl Message {
    fn from_bytes(bytes: [u8; 16], descriptor: Option<OwnedFd>) -> Self {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let errno = io::Error::from_raw_os_error(i32::try_from(word(4)).unwrap_or(0));
        let failed = (word(0) as usize)
            .checked_sub(1)
            .map(|at| (REASONS.get(at).copied().unwrap_or(InjectFailure::Gone), errno));
        let nanoseconds = u64::from(word(8)) | u64::from(word(12)) << 32;
        Self { failed, stop: Duration::from_nanos(nanoseconds), descriptor }
    }

    fn send(
        failed: Option<&Failed>,
        stop: Duration,
        uffd: Option<&OwnedFd>,
        line: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let reason =
            |failed: &Failed| REASONS.iter().position(|known| *known == failed.0).map_or(1, |at| at + 1);
        let reason = u32::try_from(failed.map_or(0, reason)).unwrap_or(1);
        let errno = failed.and_then(|failed| failed.1.raw_os_error()).unwrap_or(0);
        let nanoseconds = u64::try_from(stop.as_nanos()).unwrap_or(u64::MAX);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&reason.to_ne_bytes());
        bytes[4..8].copy_from_slice(&errno.to_ne_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_ne_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = uffd.map(|uffd| [uffd.as_fd()]);
        if let Some(descriptors) = &descriptors {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(line, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Sends a child into process `host`, whose vdso has the instruction at `syscall`, for a userfaultfd.
pub(super) fn send(host: i32, syscall: u64) -> Result<Injected, Error> {
    let mut errand = Errand::new(host)?;
    let threads = std::mem::take(&mut errand.threads);
    let courier = Courier::start(&errand, |line| {
        let mut uffd = None;
        let done = fetch(&errand, threads, syscall, &mut uffd);
        let stop = *done.as_ref().unwrap_or(&Duration::ZERO);
        i32::from(Message::send(done.as_ref().err(), stop, uffd.as_ref(), line).is_err())
    })?;
    let message = courier.hear().map_err(|e| failure(host, InjectFailure::Busy, e))?;
    match message {
        Message { failed: Some((reason, source)), .. } => Err(failure(host, reason, source)),
        Message { descriptor: Some(uffd), stop, .. } => Ok(Injected { uffd, stop }),
        _ => Err(failure(host, InjectFailure::Take, io::ErrorKind::UnexpectedEof.into())),
    }
}

/// In the child: stops the process, has it open a userfaultfd, takes that, puts everything back.
fn fetch(
    errand: &Errand,
    threads: Vec<i32>,
    syscall: u64,
    uffd: &mut Option<OwnedFd>,
) -> Result<Duration, Failed> {
    let halted = Halted::new(&errand.tasks, threads)?;
    let done = halted.first().and_then(|thread| {
        let puppet = Puppet::take(thread, syscall, &errand.memory)?;
        let taken = take_uffd(&puppet, &errand.process);
        let restored = puppet.restore();
        *uffd = Some(taken?);
        restored
    });
    let stop = halted.release();
    done.map(|()| stop)
}

fn take_uffd(puppet: &Puppet, process: &OwnedFd) -> Result<OwnedFd, Failed> {
    const FLAGS: i32 = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let flags = u64::from(FLAGS.unsigned_abs()) | UFFD_USER_MODE_ONLY;
    let number = puppet.call(libc::SYS_userfaultfd.unsigned_abs(), [flags, 0, 0])?;
    let inside = i32::try_from(number).map_err(|e| gone(io::Error::other(e)))?;
    let taken = rustix::process::pidfd_getfd(process, inside, PidfdGetfdFlags::empty());
    let closed = puppet.call(libc::SYS_close.unsigned_abs(), [number, 0, 0]);
    let taken = taken.map_err(|errno| (InjectFailure::Take, errno.into()))?;
    closed.map(|_| taken)
}

/// Has a child stop process `host` while we do `work`; should we be killed meanwhile, the child lets it go.
pub(super) fn halted<T>(host: i32, work: impl FnOnce() -> T) -> Result<(T, Duration), Error> {
    let mut errand = Errand::new(host)?;
    let threads = std::mem::take(&mut errand.threads);
    let courier = Courier::start(&errand, |line| {
        let halted = Halted::new(&errand.tasks, threads);
        let said = Message::send(halted.as_ref().err(), Duration::ZERO, None, line);
        if let (Ok(halted), Ok(())) = (halted, said) {
            // Its end, or ours, is the word to go on.
            let _ = rustix::io::read(line, &mut [0; 1]);
            halted.release();
        }
        0
    })?;
    let begun = Instant::now();
    let message = courier.hear().map_err(|e| failure(host, InjectFailure::Busy, e))?;
    if let Some((reason, source)) = message.failed {
        return Err(failure(host, reason, source));
    }
    let result = work();
    drop(courier);
    Ok((result, begun.elapsed()))
}
