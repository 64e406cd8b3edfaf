//! The container and its operations: the one entry for shim, wrapper and daemon.
//!
//! ```text
//!            create            start                     checkpoint(standby), standby
//!   (nothing) ----> Created ----------> Running <---------------------------> Standby
//!                          \  start=standby        restore, run                  |
//!                           +----------------------------------------------------+
//! ```
//! The init inside knows what the application is doing; nothing here caches it. What must outlive a process is
//! in `state.json`, and only the holder of the lock changes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastmig_control::State;
use fastmig_criu::{Bundle, Meter};
use serde::Serialize;

use crate::config::Schedule;
use crate::init::InitClient;
use crate::keeper;
use crate::keeper::journal::{self, Summary};
use crate::migration::{throttle, Mark};
use crate::resources::Measured;
use crate::runc::{Runc, Voice};
use crate::start_options::TcpPolicy;
use crate::state::{ApplicationState, Directory, Failure, Key, Lock, Record};
use crate::tree::cgroup::ApplicationCgroup;
use crate::tree::network_lock;
use crate::{policy, Config, Error};

/// How a container stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// What its client calls it.
    pub names: Vec<String>,
    /// Whether FastMig's init stands above its command.
    pub warm: bool,
    /// Why not, when not.
    pub left_alone: Option<String>,
    /// Host pid of its PID 1.
    pub pid: i32,
    /// What the application is doing.
    pub application: ApplicationState,
    /// The application's root, as the container counts it.
    pub application_pid: Option<i32>,
    /// How often an application came up in it, started or restored.
    pub runs: u32,
    /// Whether it is paused.
    pub paused: bool,
    /// The migration that it is an end of.
    pub migration: Option<Mark>,
    /// The last complete checkpoint.
    pub last_checkpoint: Option<PathBuf>,
    /// The last failed operation.
    pub last_failure: Option<Failure>,
    /// What decides about its application when that has ended, and what it has decided.
    pub policy: Option<PolicyStatus>,
    /// How often the daemon checkpoints it.
    pub schedule: Option<Schedule>,
}

/// A container's policy at work.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// The process that is there to decide; none when it was killed.
    pub keeper: Option<i32>,
    /// What was decided so far.
    #[serde(flatten)]
    pub decided: Summary,
}

/// A container that FastMig knows.
#[derive(Debug, Clone)]
pub struct Container {
    pub(crate) config: Arc<Config>,
    pub(crate) key: Key,
    pub(crate) directory: Directory,
    pub(crate) pid: i32,
    pub(crate) left_alone: Option<String>,
    pub(crate) voice: Voice,
    /// Told of every CRIU that works on it.
    pub(crate) criu: Arc<Meter>,
}

/// One operation in progress: the lock is held and the record is fresh.
#[derive(Debug)]
pub(crate) struct Operation {
    container: Container,
    pub(crate) record: Record,
    _lock: Lock,
}

impl Operation {
    /// The application is up: no connection waits for it any more but those that it has got back, which CRIU frees.
    pub(crate) fn unlock_network(&mut self) {
        if let Some(table) = self.record.network_lock.take() {
            if let Err(e) = network_lock::release(self.container.pid, &table) {
                tracing::warn!(table, error = %e, "the lock on old connections stays");
            }
        }
    }

    /// Makes what was changed in the record last.
    pub(crate) fn save(&self) -> Result<(), Error> {
        self.container.directory.store(&self.record)
    }
}

impl Container {
    /// A container that was created before, by whatever process.
    ///
    /// # Errors
    /// When FastMig does not know it.
    pub fn open(config: Arc<Config>, key: &Key) -> Result<Self, Error> {
        let directory = Directory::of(&config, key);
        let record = directory.load(key)?;
        let voice = Voice::Ours;
        Ok(Self {
            config,
            key: key.clone(),
            directory,
            pid: record.pid,
            left_alone: record.left_alone,
            voice,
            criu: Arc::default(),
        })
    }

    /// Lets runc's words go where `voice` says.
    #[must_use]
    pub fn with_voice(self, voice: Voice) -> Self {
        Self { voice, ..self }
    }

    /// Counts what is taken of the host for it from now on.
    #[must_use]
    pub fn measured(&self) -> Measured {
        Measured::begin(&self.criu)
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The settings that it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Host pid of its PID 1.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether FastMig's init stands above its command; if not, every operation is runc's.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.left_alone.is_none()
    }

    /// How it stands.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        let record = self.directory.load(&self.key)?;
        let alive = self.is_alive(&record);
        let inside =
            if alive && record.started && self.is_warm() { self.init()?.status().ok() } else { None };
        let application = match inside {
            Some(status) => state_of(&status),
            None if !alive => ApplicationState::Ended,
            None if !record.started => ApplicationState::Created,
            None => ApplicationState::Running,
        };
        Ok(Status {
            id: self.key.id().into(),
            namespace: self.key.namespace().into(),
            names: record.names.now(self.key.id(), &record.bundle),
            warm: self.is_warm(),
            left_alone: record.left_alone,
            pid: record.pid,
            application,
            application_pid: inside.and_then(|s| s.state.pid()).map(fastmig_control::Pid::get),
            runs: inside.map_or(0, |s| s.runs),
            paused: record.paused,
            migration: record.migration,
            last_checkpoint: record.last_checkpoint,
            last_failure: record.last_failure,
            policy: record.policy.map(|name| self.policy_status(name)),
            schedule: record.schedule,
        })
    }

    fn policy_status(&self, name: String) -> PolicyStatus {
        PolicyStatus { name, keeper: keeper::keeper_of(self), decided: journal::summary(&self.directory) }
    }

    /// How often the daemon is to checkpoint it.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn schedule(&self) -> Result<Option<Schedule>, Error> {
        Ok(self.directory.load(&self.key)?.schedule)
    }

    /// Whether a policy decides when its application ends.
    pub(crate) fn has_policy(&self) -> Result<bool, Error> {
        Ok(self.directory.load(&self.key)?.policy.is_some())
    }

    /// The name of its policy; `off` when it has none.
    pub(crate) fn policy_name(&self) -> Result<String, Error> {
        let record = self.directory.load(&self.key)?;
        Ok(record.policy.unwrap_or_else(|| policy::OFF.into()))
    }

    /// Starts a keeper where the container has a policy and its keeper was killed. Whether one was started.
    ///
    /// # Errors
    /// When its state cannot be read, or no process can be started.
    pub fn ensure_keeper(&self) -> Result<bool, Error> {
        let record = self.directory.load(&self.key)?;
        if record.policy.is_none() || !record.started || !self.is_alive(&record) {
            return Ok(false);
        }
        keeper::ensure(self)
    }

    /// Whoever operates on a container whose keeper was killed starts another.
    fn look_after_keeper(&self, record: &Record) {
        if record.policy.is_none() || !record.started || !self.is_alive(record) {
            return;
        }
        if let Err(e) = keeper::ensure(self) {
            tracing::error!(container = self.key.id(), error = %e.report(), "nobody decides about its end");
        }
    }

    /// Whether its PID 1 lives.
    pub(crate) fn is_up(&self) -> bool {
        self.directory.load(&self.key).is_ok_and(|record| self.is_alive(&record))
    }

    pub(crate) fn tcp_policy(&self) -> Result<TcpPolicy, Error> {
        Ok(self.directory.load(&self.key)?.tcp)
    }

    pub(crate) fn begin(&self) -> Result<Operation, Error> {
        let mut operation = self.begin_settling()?;
        if !operation.record.migration.as_ref().is_some_and(|mark| mark.fenced) {
            throttle::undo(&mut operation)?;
        }
        match operation.record.migration.take() {
            Some(mark) if mark.fenced => {
                Err(Error::Migrating { id: self.key.id().into(), migration: mark.id })
            }
            // We hold the lock: its maker is gone, and the application runs on. Nobody but us knows that any more.
            Some(mark) => {
                self.let_go(&mark, operation.record.network_lock.take())?;
                operation.save()?;
                Ok(operation)
            }
            None => Ok(operation),
        }
    }

    /// [`Container::begin`] also where a migration waits for a decision.
    pub(crate) fn begin_settling(&self) -> Result<Operation, Error> {
        let lock = self.directory.lock(&self.key, self.config.limits.lock())?;
        let record = self.directory.load(&self.key)?;
        self.look_after_keeper(&record);
        Ok(Operation { container: self.clone(), record, _lock: lock })
    }

    pub(crate) fn begin_warm(&self, action: &'static str) -> Result<Operation, Error> {
        if let Some(reason) = &self.left_alone {
            return Err(Error::NotWarm { id: self.key.id().into(), reason: reason.clone() });
        }
        let operation = self.begin()?;
        if !operation.record.started {
            return Err(self.wrong_state(action, ApplicationState::Created));
        }
        if !self.is_alive(&operation.record) {
            return Err(self.wrong_state(action, ApplicationState::Ended));
        }
        Ok(operation)
    }

    pub(crate) fn require_standby(&self, action: &'static str) -> Result<(), Error> {
        match self.application()? {
            ApplicationState::Standby => Ok(()),
            state => Err(self.wrong_state(action, state)),
        }
    }

    /// What the application is doing, asked of the init.
    pub(crate) fn application(&self) -> Result<ApplicationState, Error> {
        Ok(state_of(&self.init()?.status()?))
    }

    pub(crate) fn init(&self) -> Result<InitClient, Error> {
        InitClient::connect(&self.key, self.directory.path(), self.config.limits.init())
    }

    /// As it was found at the creation: a PID 1 that was killed has left its cgroups, and its application is in them still.
    pub(crate) fn application_cgroup(&self) -> Result<ApplicationCgroup, Error> {
        if let Some(cgroup) = self.directory.load(&self.key)?.cgroup {
            return Ok(cgroup);
        }
        ApplicationCgroup::of(self.pid).map_err(|e| Error::io("find the cgroups of", &proc_of(self.pid), e))
    }

    pub(crate) fn criu_bundle(&self) -> Result<Bundle, Error> {
        let inside = Path::new(fastmig_control::RUNTIME_DIR).join("criu");
        Ok(Bundle::open(&self.config.runtime_dir.join("criu"), &inside)?)
    }

    pub(crate) fn freeze(&self) -> Result<(), Error> {
        let cgroup = self.application_cgroup()?;
        cgroup.freeze(self.config.limits.freeze()).map_err(|e| match e.kind() {
            std::io::ErrorKind::TimedOut => Error::NotFrozen { id: self.key.id().into() },
            _ => Error::io("freeze", cgroup.directory(), e),
        })
    }

    pub(crate) fn set_last_pid(&self, last: i32) -> Result<(), Error> {
        fastmig_criu::set_last_pid(self.pid, last)
            .map_err(|e| Error::io("set the last pid in", &proc_of(self.pid).join("ns/pid"), e))
    }

    pub(crate) fn wrong_state(&self, action: &'static str, state: ApplicationState) -> Error {
        Error::WrongState { id: self.key.id().into(), action, state }
    }

    pub(crate) fn runc(&self, record: &Record) -> Runc {
        Runc::new(record.runc.clone(), self.directory.file("runc.log"), self.config.limits.runc())
            .with_voice(self.voice.clone())
    }

    /// Whether its PID 1 is gone, or goes in the time that it may take for an answer.
    pub(crate) fn has_ended(&self) -> Result<bool, Error> {
        let record = self.directory.load(&self.key)?;
        let deadline = Instant::now() + self.config.limits.init();
        while self.is_alive(&record) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    fn is_alive(&self, record: &Record) -> bool {
        record.init_mark().runs()
    }
}

fn state_of(status: &fastmig_control::Status) -> ApplicationState {
    match status.state {
        State::Standby => ApplicationState::Standby,
        State::Restoring { .. } => ApplicationState::Restoring,
        _ => ApplicationState::Running,
    }
}

pub(crate) fn proc_of(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}
