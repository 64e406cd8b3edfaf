//! The process of one streaming CRIU: what it announces, how long it may take, how it ends.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_open, Pid, PidfdFlags};

use super::pagemap::PageImage;
use super::{capture, serve, Directory, ImageSink, ImageSource};
use crate::breakpoints::Breakpoints;
use crate::session::{CriuError, Notification};
use crate::{explain, Log, Meter};

/// The announcing program connects, says a word and waits.
const WORD: u64 = 64;
const WORD_LIMIT: Duration = Duration::from_secs(5);
/// What it is answered, and ends with.
const GO_ON: [u8; 1] = [0];
const GIVE_UP: [u8; 1] = [1];

/// A CRIU in stream mode. Dropped before it has ended, it is killed.
#[derive(Debug)]
struct Process {
    child: Child,
    end: OwnedFd,
    directory: Directory,
    log: Log,
    action: &'static str,
    limit: Duration,
    deadline: Instant,
    meter: Arc<Meter>,
    _breakpoints: Option<Breakpoints>,
}

/// What a CRIU does next.
enum Event {
    /// It has come to this stage, and waits there for an answer.
    Stage(Notification, UnixStream),
    Ended(ExitStatus),
}

impl Process {
    fn new(
        child: Child,
        directory: Directory,
        log: Log,
        action: &'static str,
        limit: Duration,
        meter: Arc<Meter>,
    ) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let end = pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
        directory.announcements.set_nonblocking(true)?;
        let deadline = Instant::now() + limit;
        let _breakpoints = Breakpoints::prepare();
        Ok(Self { child, end, directory, log, action, limit, deadline, meter, _breakpoints })
    }

    /// The time that it has spent waiting for us does not count.
    fn begin_again(&mut self) {
        self.deadline = Instant::now() + self.limit;
    }

    fn next(&mut self) -> Result<Event, CriuError> {
        loop {
            if let Some(event) = self.announced()? {
                return Ok(event);
            }
            self.meter.look(self.child.id());
            if let Some(status) = self.child.try_wait().map_err(self.broken())? {
                return Ok(Event::Ended(status));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill();
                let (action, limit, log) = (self.action, self.limit, self.log.kept());
                return Err(CriuError::TimedOut { action, limit, log });
            }
            let left = Timespec::try_from(left).ok();
            let mut watched = [
                PollFd::new(&self.directory.announcements, PollFlags::IN),
                PollFd::new(&self.end, PollFlags::IN),
            ];
            match poll(&mut watched, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(self.broken()(e.into())),
            }
        }
    }

    fn announced(&self) -> Result<Option<Event>, CriuError> {
        let socket = match self.directory.announcements.accept() {
            Ok((socket, _)) => socket,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(self.broken()(e)),
        };
        let word = read_word(&socket).map_err(self.broken())?;
        tracing::debug!(action = self.action, stage = word, "criu");
        Ok(Some(Event::Stage(Notification::from_script(&word), socket)))
    }

    /// Goes on to the end, or to the stage where `follow` refuses.
    fn follow(
        &mut self,
        follow: &mut dyn FnMut(Notification) -> Result<(), String>,
    ) -> Result<(), CriuError> {
        loop {
            match self.next()? {
                Event::Ended(status) => return self.judge(status),
                Event::Stage(stage, socket) => match follow(stage) {
                    Ok(()) => self.answer(socket, GO_ON)?,
                    Err(reason) => {
                        // At some stages CRIU goes on whatever it is answered.
                        self.kill();
                        return Err(CriuError::Refused { action: self.action, reason });
                    }
                },
            }
        }
    }

    fn answer(&self, mut socket: UnixStream, answer: [u8; 1]) -> Result<(), CriuError> {
        match socket.write_all(&answer) {
            // It is gone: CRIU's own end tells why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(self.broken()),
        }
    }

    fn judge(&self, status: ExitStatus) -> Result<(), CriuError> {
        if status.success() {
            return Ok(());
        }
        let (action, log) = (self.action, self.log.kept());
        let explanation = explain(self.log.written(), "");
        Err(match status.code() {
            Some(_) => CriuError::Failed { action, explanation, log },
            None => CriuError::Died { action, status, explanation, log },
        })
    }

    fn broken(&self) -> impl Fn(io::Error) -> CriuError {
        let action = self.action;
        move |source| CriuError::Conversation { action, source }
    }

    fn kill(&mut self) {
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::warn!(error = %e, "criu could not be killed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn read_word(socket: &UnixStream) -> io::Result<String> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(WORD_LIMIT))?;
    let mut word = Vec::new();
    let mut byte = [0];
    let mut reader = socket.take(WORD);
    while reader.read(&mut byte)? == 1 && byte != *b"\n" {
        word.extend(byte);
    }
    String::from_utf8(word).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A CRIU that is about to dump: loaded, the kernel probed, nothing touched yet.
#[derive(Debug)]
pub struct StreamedDump {
    process: Process,
    waiting: UnixStream,
}

impl StreamedDump {
    pub(crate) fn begin(
        child: Child,
        directory: Directory,
        log: Log,
        limit: Duration,
        meter: Arc<Meter>,
    ) -> Result<Self, CriuError> {
        let mut process = made(child, directory, log, "dump", limit, meter)?;
        loop {
            match process.next()? {
                Event::Stage(Notification::PreDump, waiting) => return Ok(Self { process, waiting }),
                Event::Stage(_, socket) => process.answer(socket, GO_ON)?,
                Event::Ended(status) => {
                    process.judge(status)?;
                    return Err(too_early("dump"));
                }
            }
        }
    }

    /// Dumps into `sink`, all but the memory of processes, which is described instead. No task has been killed, whatever the
    /// outcome.
    ///
    /// # Errors
    /// When CRIU fails, dies or exceeds its limit, or the sink refuses.
    pub fn dump(self, sink: &mut dyn ImageSink) -> Result<Vec<PageImage>, CriuError> {
        let Self { mut process, waiting } = self;
        process.begin_again();
        let listener = process.directory.images.try_clone().map_err(process.broken())?;
        std::thread::scope(|scope| {
            let captured = scope.spawn(move || capture::capture(&listener, sink));
            let outcome = process.answer(waiting, GO_ON).and_then(|()| process.follow(&mut |_| Ok(())));
            // Ends the capture, should CRIU still live.
            let broken = process.broken();
            drop(process);
            let captured =
                captured.join().unwrap_or_else(|_| Err(io::Error::other("the capturing thread panicked")));
            match (outcome, captured) {
                (Ok(()), Ok(left_out)) => Ok(left_out),
                // CRIU only knows that its pipe was closed.
                (_, Err(e)) if e.kind() != io::ErrorKind::UnexpectedEof => Err(broken(e)),
                (Err(e), _) => Err(e),
                (Ok(()), Err(e)) => Err(broken(e)),
            }
        })
    }

    /// Ends CRIU before it has touched anything.
    pub fn cancel(self) {
        let Self { process, waiting } = self;
        // Killed right after, if it does not go by itself.
        let _ = process.answer(waiting, GIVE_UP);
    }
}

/// A CRIU that waits for its first image.
#[derive(Debug)]
pub struct StreamedRestore {
    process: Process,
}

impl StreamedRestore {
    pub(crate) fn begin(
        child: Child,
        directory: Directory,
        log: Log,
        limit: Duration,
        meter: Arc<Meter>,
    ) -> Result<Self, CriuError> {
        made(child, directory, log, "restore", limit, meter).map(|process| Self { process })
    }

    /// The process id on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Restores from `source`. The root is a child of the joined pid namespace's init once this returns.
    ///
    /// # Errors
    /// When CRIU fails, dies, exceeds its limit, or `follow` refuses, which kills CRIU. What was restored by then is for
    /// the caller to kill.
    pub fn restore(
        self,
        source: &Arc<dyn ImageSource>,
        follow: &mut dyn FnMut(Notification) -> Result<(), String>,
    ) -> Result<(), CriuError> {
        let mut process = self.process;
        process.begin_again();
        let listener = process.directory.images.try_clone().map_err(process.broken())?;
        let source = source.clone();
        // Not waited for: restored tasks may hold the connection a little longer than CRIU lives.
        std::thread::Builder::new()
            .name("images".into())
            .spawn(move || {
                if let Err(e) = serve::serve(&listener, &source) {
                    tracing::warn!(error = %e, "CRIU was not given all images that it wanted");
                }
            })
            .map_err(process.broken())?;
        process.follow(follow)
    }
}

fn made(
    child: Child,
    directory: Directory,
    log: Log,
    action: &'static str,
    limit: Duration,
    meter: Arc<Meter>,
) -> Result<Process, CriuError> {
    Process::new(child, directory, log, action, limit, meter)
        .map_err(|source| CriuError::Conversation { action, source })
}

fn too_early(action: &'static str) -> CriuError {
    CriuError::Nonsense { action, what: "it ended before it had begun".into() }
}
