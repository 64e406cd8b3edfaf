//! The RPC with one CRIU worker: requests, notifications, the answer, and the limit on how long all may take.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{recv, send, MsgFlags};
use protobuf::Message;
use rust_criu::rust_criu_protobuf::rpc;

use crate::breakpoints::Breakpoints;
use crate::{explain, DumpOptions, Explanation, Life, Log, Meter, RestoreOptions};

/// CRIU's answers are small; its longest field is an error text.
const LARGEST_ANSWER: usize = 64 * 1024;

/// What CRIU announces on its way (its action scripts' names).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    /// Everything is ready for the dump, and nothing touched yet.
    PreDump,
    /// The dump is done, tasks are still held.
    PostDump,
    /// The root task is there, and nothing below it yet.
    SetupNamespaces,
    /// Every task is restored and held; nothing of it has run yet.
    PostRestore,
    /// The tasks are about to run.
    PreResume,
    /// Any other stage.
    Other,
}

impl Notification {
    pub(crate) fn from_script(name: &str) -> Self {
        match name {
            "pre-dump" => Self::PreDump,
            "post-dump" => Self::PostDump,
            "setup-namespaces" => Self::SetupNamespaces,
            "post-restore" => Self::PostRestore,
            "pre-resume" => Self::PreResume,
            _ => Self::Other,
        }
    }
}

/// What the kernel and this CRIU can do together, probed by CRIU itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Features {
    /// Soft-dirty page tracking.
    pub memory_tracking: bool,
    /// Lazy pages (userfaultfd with all its events).
    pub lazy_pages: bool,
    /// Reliable detection of reused pids.
    pub pidfd_store: bool,
}

/// The version that a worker reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Major number.
    pub major: i32,
    /// Minor number.
    pub minor: i32,
    /// Patch level, 0 when there is none.
    pub sublevel: i32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.sublevel)
    }
}

/// Why a call of CRIU came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// It could not be started.
    #[error(transparent)]
    Launch(#[from] crate::LaunchError),
    /// CRIU answered that it failed.
    #[error("CRIU could not {action}: {explanation} (its log: {log:?})")]
    Failed {
        /// `dump`, `restore`, ...
        action: &'static str,
        /// Cause and remedy, as far as the log tells.
        explanation: Explanation,
        /// Where the whole log is kept.
        log: PathBuf,
    },
    /// CRIU did not end in time and was killed.
    #[error("CRIU did not {action} within {limit:?} and was killed (its log: {log:?})")]
    TimedOut {
        /// `dump`, `restore`, ...
        action: &'static str,
        /// The time that it had.
        limit: Duration,
        /// Where the log is kept.
        log: PathBuf,
    },
    /// CRIU went away without an answer.
    #[error("CRIU ended without an answer to {action} ({status}): {explanation} (its log: {log:?})")]
    Died {
        /// `dump`, `restore`, ...
        action: &'static str,
        /// How its process ended.
        status: ExitStatus,
        /// Cause and remedy, as far as the log tells.
        explanation: Explanation,
        /// Where the whole log is kept.
        log: PathBuf,
    },
    /// The one who follows CRIU's notifications refused to go on.
    #[error("the {action} was given up: {reason}")]
    Refused {
        /// `dump`, `restore`, ...
        action: &'static str,
        /// Why.
        reason: String,
    },
    /// The conversation itself broke.
    #[error("the conversation with CRIU about {action} broke")]
    Conversation {
        /// `dump`, `restore`, ...
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// CRIU sent what its protocol does not allow.
    #[error("CRIU's answer to {action} makes no sense: {what}")]
    Nonsense {
        /// `dump`, `restore`, ...
        action: &'static str,
        /// What was wrong with it.
        what: String,
    },
}

mod prepared;

pub use prepared::PreparedDump;

/// A running CRIU worker. Dropped before it has answered, it is killed.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    child: Child,
    log: Log,
    limit: Duration,
    deadline: Instant,
    meter: Arc<Meter>,
    _breakpoints: Option<Breakpoints>,
}

impl Session {
    pub(crate) fn new(socket: OwnedFd, child: Child, log: Log, limit: Duration, meter: Arc<Meter>) -> Self {
        let deadline = Instant::now() + limit;
        Self { socket, child, log, limit, deadline, meter, _breakpoints: Breakpoints::prepare() }
    }

    /// The worker's process id on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the worker has ended while it was to wait for `action`.
    ///
    /// # Errors
    /// When it has, and how.
    pub fn require_alive(&mut self, action: &'static str) -> Result<(), CriuError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(self.died(action)),
            Err(source) => Err(CriuError::Conversation { action, source }),
        }
    }

    /// What tells, from any thread, whether the worker lives.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn life(&self) -> io::Result<Life> {
        Life::of(&self.child)
    }

    /// Dumps a process tree. Whatever the outcome, no dumped task has been killed.
    ///
    /// # Errors
    /// When CRIU fails, dies or exceeds the limit.
    pub fn dump(mut self, options: &DumpOptions) -> Result<(), CriuError> {
        self.converse("dump", &options.request(self.log.detail()), &mut |_| Ok(()))?;
        self.finish();
        Ok(())
    }

    /// Restores a process tree; returns its root's pid in the pid namespace that CRIU has joined. The root is a
    /// child of that namespace's init once this returns.
    ///
    /// # Errors
    /// When CRIU fails, dies, exceeds the limit, or `follow` refuses, which kills CRIU. What was restored by
    /// then is for the caller to kill.
    pub fn restore(
        mut self,
        options: &RestoreOptions,
        follow: &mut dyn FnMut(Notification) -> Result<(), String>,
    ) -> Result<i32, CriuError> {
        let answer = self.converse("restore", &options.request(self.log.detail()), follow)?;
        let pid = answer.restore.pid();
        self.finish();
        if pid <= 0 {
            return Err(CriuError::Nonsense { action: "restore", what: format!("root pid {pid}") });
        }
        Ok(pid)
    }

    /// Asks what kernel and CRIU can do.
    ///
    /// # Errors
    /// When CRIU fails, dies or exceeds the limit.
    pub fn features(mut self) -> Result<Features, CriuError> {
        let mut wanted = rpc::Criu_features::new();
        wanted.set_mem_track(true);
        wanted.set_lazy_pages(true);
        wanted.set_pidfd_store(true);
        let mut request = rpc::Criu_req::new();
        request.set_type(rpc::Criu_req_type::FEATURE_CHECK);
        request.features = protobuf::MessageField::some(wanted);
        let answer = self.converse("probe its features", &request, &mut |_| Ok(()))?;
        self.finish();
        Ok(Features {
            memory_tracking: answer.features.mem_track(),
            lazy_pages: answer.features.lazy_pages(),
            pidfd_store: answer.features.pidfd_store(),
        })
    }

    /// Asks for the version.
    ///
    /// # Errors
    /// When CRIU fails, dies or exceeds the limit.
    pub fn version(mut self) -> Result<Version, CriuError> {
        let mut request = rpc::Criu_req::new();
        request.set_type(rpc::Criu_req_type::VERSION);
        let answer = self.converse("tell its version", &request, &mut |_| Ok(()))?;
        self.finish();
        let version = &answer.version;
        Ok(Version {
            major: version.major_number(),
            minor: version.minor_number(),
            sublevel: version.sublevel(),
        })
    }

    fn converse(
        &mut self,
        action: &'static str,
        request: &rpc::Criu_req,
        follow: &mut dyn FnMut(Notification) -> Result<(), String>,
    ) -> Result<rpc::Criu_resp, CriuError> {
        self.begin_again();
        self.say(action, request)?;
        loop {
            let stage = match self.next(action)? {
                Word::Answer(answer) => return Ok(*answer),
                Word::Stage(stage) => stage,
            };
            if let Err(reason) = follow(stage) {
                self.kill(); // at some stages CRIU goes on whatever it is answered
                return Err(CriuError::Refused { action, reason });
            }
            self.say(action, &acknowledgement())?;
        }
    }

    /// The time that it has waited for us does not count.
    fn begin_again(&mut self) {
        self.deadline = Instant::now() + self.limit;
    }

    fn next(&mut self, action: &'static str) -> Result<Word, CriuError> {
        let answer = self.hear(action)?;
        self.meter.look(self.child.id());
        if answer.type_() != rpc::Criu_req_type::NOTIFY {
            return self.judge(action, answer).map(|answer| Word::Answer(answer.into()));
        }
        tracing::debug!(action, stage = answer.notify.script(), "criu");
        Ok(Word::Stage(Notification::from_script(answer.notify.script())))
    }

    fn judge(&mut self, action: &'static str, answer: rpc::Criu_resp) -> Result<rpc::Criu_resp, CriuError> {
        if !answer.success() {
            self.finish();
            let explanation = explain(self.log.written(), answer.cr_errmsg());
            return Err(CriuError::Failed { action, explanation, log: self.log.kept() });
        }
        Ok(answer)
    }

    fn say(&mut self, action: &'static str, request: &rpc::Criu_req) -> Result<(), CriuError> {
        let bytes = request
            .write_to_bytes()
            .map_err(|e| CriuError::Nonsense { action, what: format!("request not encodable: {e}") })?;
        match send(self.socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => Err(self.died(action)),
            Err(errno) => Err(CriuError::Conversation { action, source: errno.into() }),
        }
    }

    fn hear(&mut self, action: &'static str) -> Result<rpc::Criu_resp, CriuError> {
        let conversation =
            |errno: nix::errno::Errno| CriuError::Conversation { action, source: errno.into() };
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill();
                return Err(CriuError::TimedOut { action, limit: self.limit, log: self.log.kept() });
            }
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, wait) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => break,
                Err(errno) => return Err(conversation(errno)),
            }
        }
        let mut buffer = vec![0; LARGEST_ANSWER];
        match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(nix::errno::Errno::ECONNRESET) => Err(self.died(action)),
            Ok(length) => rpc::Criu_resp::parse_from_bytes(&buffer[..length])
                .map_err(|e| CriuError::Nonsense { action, what: e.to_string() }),
            Err(errno) => Err(conversation(errno)),
        }
    }

    fn died(&mut self, action: &'static str) -> CriuError {
        match self.child.wait() {
            Ok(status) => {
                let explanation = explain(self.log.written(), "");
                CriuError::Died { action, status, explanation, log: self.log.kept() }
            }
            Err(source) => CriuError::Conversation { action, source },
        }
    }

    /// Lets the worker end by itself: it does when its peer is gone, and only then are its children init's.
    fn finish(&mut self) {
        if let Err(e) = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both)
        {
            tracing::debug!(error = %e, "closing the conversation with criu");
        }
        let ended = self.life().and_then(|life| life.until_over(self.deadline));
        if !matches!(ended, Ok(true)) || self.child.wait().is_err() {
            self.kill();
        }
    }

    fn kill(&mut self) {
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::warn!(error = %e, "criu could not be killed");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// What a worker says.
enum Word {
    Stage(Notification),
    Answer(Box<rpc::Criu_resp>),
}

fn acknowledgement() -> rpc::Criu_req {
    let mut request = rpc::Criu_req::new();
    request.set_type(rpc::Criu_req_type::NOTIFY);
    request.set_notify_success(true);
    request
}
