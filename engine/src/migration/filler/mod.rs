//! A process of its own brings the memory that an application still misses, so that the death of whoever began the migration
//! concerns nobody. It has the userfaultfds from the first moment on, for they cannot be shared: what one says is read once.
//!
//! ```text
//!   Begin ─► Add ... ─► GoOn ─► Watch ──► all is there ─────────► filled.json, End
//!     │ whoever began it dies: it goes │
//!     ▼                                └► it will never be ─────► the application is killed, by us or by the watcher
//! ```
//!
//! It is found by its socket in the container's directory. When it ends it leaves word of how. Should it be killed itself, the
//! watcher of `filling` kills the application: what it misses would read as zeros.
//!
//! | file | what it does |
//! |---|---|
//! | `words` | what is said to it |
//! | `process` | the process |

mod process;
mod words;

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::words::{Answer, Request, Stands};
use super::filled::Takes;
use super::owed::Debt;
use crate::container::Container;
use crate::state::ProcessMark;

pub use process::run_if_asked;

/// The word that makes a program of ours one.
const WORD: &str = "fill-memory";
/// Ourselves, whatever has become of our file.
const OURSELVES: &str = "/proc/self/exe";
/// Where it is found.
const SOCKET: &str = "fill.sock";
/// How it ended.
const RESULT: &str = "filled.json";
/// How long an answer may take that nothing is waited for.
const SOON: Duration = Duration::from_secs(20);
/// How long it may take to make huge pages again when all is there.
const LAST: Duration = Duration::from_secs(120);
/// How long it may take to go when it is told to.
const GOES: Duration = Duration::from_secs(5);

/// Why it says nothing any more.
const KILLED: &str = "the process that fetched it was killed";

/// What it leaves behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ended {
    bytes: u64,
    faults: u64,
    /// Why memory did not come.
    lost: Option<String>,
}

/// The process that fills a container's memory, seen from elsewhere. Dropped before [`Filler::watch`], it goes.
#[derive(Debug)]
pub(super) struct Filler {
    line: Mutex<Line>,
    container: Container,
    stands: Mutex<Stands>,
}

/// The way to it.
#[derive(Debug)]
enum Line {
    /// It comes up, while the application stands still.
    ComesUp(JoinHandle<io::Result<(Option<ProcessMark>, UnixStream)>>),
    Open(Option<ProcessMark>, UnixStream),
    /// It has ended, or never came up.
    Closed(Option<ProcessMark>, String),
}

impl Filler {
    /// Starts one, which fetches by `errand`. Whether it came up the next word says.
    pub(super) fn start(container: &Container, errand: &str, debt: &Debt) -> io::Result<Self> {
        let begin = Request::Begin { number: debt.number, owed: debt.owed.clone(), errand: errand.into() };
        let of = container.clone();
        let comes_up =
            std::thread::Builder::new().name("fill".into()).spawn(move || begin_one(&of, &begin))?;
        Ok(Self::new(container, Line::ComesUp(comes_up)))
    }

    /// The one of a container, or what it has left behind.
    pub(super) fn of(container: &Container, mark: Option<ProcessMark>) -> Self {
        let line = connect(container);
        let line = line.map_or_else(|_| Line::Closed(mark, KILLED.into()), |line| Line::Open(mark, line));
        Self::new(container, line)
    }

    fn new(container: &Container, line: Line) -> Self {
        Self { line: Mutex::new(line), container: container.clone(), stands: Mutex::default() }
    }

    pub(super) fn mark(&self) -> Option<ProcessMark> {
        match &*self.line() {
            Line::Open(mark, _) | Line::Closed(mark, _) => *mark,
            Line::ComesUp(_) => None,
        }
    }

    /// The way to it, once it has come up.
    fn line(&self) -> MutexGuard<'_, Line> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*line, Line::ComesUp(_)) {
            let never = Line::Closed(None, KILLED.into());
            if let Line::ComesUp(comes_up) = std::mem::replace(&mut *line, never) {
                *line = match comes_up.join() {
                    Ok(Ok((mark, stream))) => Line::Open(mark, stream),
                    Ok(Err(e)) => Line::Closed(None, e.to_string()),
                    Err(_) => Line::Closed(None, "its thread panicked".into()),
                };
            }
        }
        line
    }

    /// All processes are there, and frozen: the rest begins to come.
    pub(super) fn go_on(&self) -> io::Result<()> {
        self.done(&Request::GoOn, None)
    }

    /// From here on it goes its own way, whatever becomes of us; its death is the application's.
    pub(super) fn watch(&self) -> io::Result<()> {
        self.done(&Request::Watch, None)
    }

    /// Waits for the end, for so long. Whether all is there.
    pub(super) fn wait(&self, patience: Duration) -> Result<bool, String> {
        let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let stands = match self.ask(&Request::Wait { milliseconds }, None, patience + SOON) {
            Ok(Answer::Stands(stands)) => stands,
            Ok(answer) => return Err(format!("the process that fetches it says {answer:?}")),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err("the process that fetches it does not answer".into())
            }
            Err(_) => left(&self.container)?,
        };
        self.stands.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&stands);
        stands.end.map_or(Ok(false), |end| end.map(|()| true))
    }

    /// Bytes that were there, and how often the application had waited for some of them, when that was last heard.
    pub(super) fn told(&self) -> (u64, u64) {
        let stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        (stands.bytes, stands.faults)
    }

    /// All is there. Waits until nothing holds the application's memory any more.
    pub(super) fn end(&self) {
        // One that is gone already has done so.
        if let Err(e) = self.ask(&Request::End, None, LAST) {
            tracing::debug!(error = %e, "who filled memory has gone");
        }
        forget(&self.container);
    }

    /// What is missing does not come any more.
    pub(super) fn lose(&self, reason: &str) -> io::Result<()> {
        self.done(&Request::Lose { reason: reason.into() }, None)
    }

    /// The application is gone, and so is what was to be filled.
    pub(super) fn stop(&self) {
        drop(self.done(&Request::Stop, None));
        let begun = Instant::now();
        while let Some(mark) = self.mark().filter(|mark| mark.runs()) {
            if begun.elapsed() > GOES {
                let _ = kill(Pid::from_raw(mark.pid), Signal::SIGKILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        forget(&self.container);
    }

    fn done(&self, request: &Request, along: Option<OwnedFd>) -> io::Result<()> {
        match self.ask(request, along, SOON)? {
            Answer::Done => Ok(()),
            Answer::Failed(reason) => Err(io::Error::other(reason)),
            Answer::Stands(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn ask(&self, request: &Request, along: Option<OwnedFd>, limit: Duration) -> io::Result<Answer> {
        match &*self.line() {
            Line::Open(_, line) => ask(line, request, along, limit),
            Line::Closed(_, reason) => Err(io::Error::new(io::ErrorKind::BrokenPipe, reason.clone())),
            Line::ComesUp(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn begin_one(container: &Container, begin: &Request) -> io::Result<(Option<ProcessMark>, UnixStream)> {
    forget(container);
    let listener = bind(container)?;
    let mut child = Command::new(OURSELVES)
        .arg(WORD)
        .args([container.key().namespace(), container.key().id()])
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .spawn()?;
    let mark = i32::try_from(child.id()).ok().and_then(ProcessMark::of);
    // It may outlive us; if not, somebody must hear of its end.
    std::thread::Builder::new().name("reap".into()).spawn(move || drop(child.wait()))?;
    let line = connect(container)?;
    match ask(&line, begin, None, SOON)? {
        Answer::Failed(reason) => Err(io::Error::other(reason)),
        _ => Ok((mark, line)),
    }
}

fn ask(line: &UnixStream, request: &Request, along: Option<OwnedFd>, limit: Duration) -> io::Result<Answer> {
    line.set_read_timeout(Some(limit))?;
    line.set_write_timeout(Some(SOON))?;
    words::say(line, request, along.as_ref().map(AsFd::as_fd))?;
    let answer = words::hear(line)?.map(|(answer, _)| answer);
    answer.ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, KILLED))
}

impl Takes for Filler {
    fn take(&self, process: i32, uffd: OwnedFd) -> io::Result<()> {
        self.done(&Request::Add { process }, Some(uffd))
    }
}

/// What one that has ended has left behind.
fn left(container: &Container) -> Result<Stands, String> {
    let bytes = std::fs::read(container.directory.file(RESULT)).map_err(|_| KILLED)?;
    let Ended { bytes, faults, lost } = serde_json::from_slice(&bytes).map_err(|_| KILLED)?;
    Ok(Stands { bytes, faults, end: Some(lost.map_or(Ok(()), Err)) })
}

/// Nothing is missing any more, or nobody.
pub(super) fn forget(container: &Container) {
    for name in [SOCKET, RESULT] {
        match std::fs::remove_file(container.directory.file(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(name, error = %e, "a file of memory that followed stays");
            }
            _ => {}
        }
    }
}

/// By a descriptor: the path may be longer than an address of a socket.
fn bind(container: &Container) -> io::Result<UnixListener> {
    let path = container.directory.file(SOCKET);
    let directory = File::open(path.parent().unwrap_or(&path))?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn connect(container: &Container) -> io::Result<UnixStream> {
    let path = container.directory.file(SOCKET);
    let directory = File::open(path.parent().unwrap_or(&path))?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}
