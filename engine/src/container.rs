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

use fastmig_control::{Reply, Request, Signal, State};
use serde::Serialize;

use crate::application::{self, PID_BASE};
use crate::cgroup::ApplicationCgroup;
use crate::init::{self, InitClient};
use crate::runc::{Gifts, Runc};
use crate::spec::Spec;
use crate::state::{ApplicationState, Directory, Failure, Key, Lock, Record, StartMode};
use crate::{lookup, restore, runc, Config, Error};

pub use crate::runc::StdioFds;

/// What a new container is made from.
#[derive(Debug)]
pub struct CreateRequest {
    /// Its name.
    pub key: Key,
    /// The OCI bundle; its `config.json` is rewritten.
    pub bundle: PathBuf,
    /// Which runc, and its global options.
    pub runc: runc::Options,
    /// The standard streams of the container.
    pub stdio: StdioFds,
    /// Where runc sends the terminal's master, when the spec asks for a terminal.
    pub console_socket: Option<PathBuf>,
    /// runc's `--no-pivot`.
    pub no_pivot_root: bool,
    /// runc's `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// [`Container::start`] restores from here, and fails when that fails.
    pub checkpoint: Option<PathBuf>,
    /// Where the pid of the container's PID 1 is written too.
    pub pid_file: Option<PathBuf>,
}

/// What a process beside the application is made from.
#[derive(Debug)]
pub struct ExecRequest {
    /// Its name.
    pub exec_id: String,
    /// The OCI process, JSON.
    pub process_json: Vec<u8>,
    /// Its standard streams.
    pub stdio: StdioFds,
    /// Where runc sends the terminal's master, when the process asks for a terminal.
    pub console_socket: Option<PathBuf>,
}

/// How a container stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
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
    /// The last complete checkpoint.
    pub last_checkpoint: Option<PathBuf>,
    /// The last failed operation.
    pub last_failure: Option<Failure>,
}

/// A container that FastMig knows.
#[derive(Debug, Clone)]
pub struct Container {
    pub(crate) config: Arc<Config>,
    pub(crate) key: Key,
    pub(crate) directory: Directory,
    pid: i32,
    left_alone: Option<String>,
}

/// One operation in progress: the lock is held and the record is fresh.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    container: &'a Container,
    pub(crate) record: Record,
    _lock: Lock,
}

impl Operation<'_> {
    /// Makes what was changed in the record last.
    pub(crate) fn save(&self) -> Result<(), Error> {
        self.container.directory.store(&self.record)
    }
}

impl Container {
    /// Creates a container: its PID 1 waits for [`Container::start`].
    ///
    /// # Errors
    /// When the name is taken, the spec or an annotation is wrong, the command is not there, or runc fails;
    /// nothing is left of the container then.
    pub fn create(config: Arc<Config>, request: CreateRequest) -> Result<Self, Error> {
        let directory = Directory::of(&config, &request.key);
        directory.make(&request.key)?;
        let result = Self::create_in(&config, &directory, request);
        if result.is_err() {
            if let Err(e) = directory.remove() {
                tracing::warn!(error = %e.report(), "the directory of a failed container stays");
            }
        }
        result
    }

    fn create_in(config: &Arc<Config>, directory: &Directory, request: CreateRequest) -> Result<Self, Error> {
        let mut spec = Spec::load(&request.bundle)?;
        let facts = spec.facts()?;
        let left_alone = facts.left_alone.clone();
        let control = match left_alone {
            Some(_) => None,
            None => {
                spec.put_init_above(&config.runtime_dir)?;
                spec.store()?;
                Some(init::listener(directory.path())?)
            }
        };
        let runc = Runc::new(request.runc.clone(), directory.file("runc.log"), config.limits.runc());
        let pid_file = directory.file("init.pid");
        let mut arguments = vec!["create".into(), "--bundle".into(), request.bundle.clone().into_os_string()];
        arguments.extend(["--pid-file".into(), pid_file.clone().into_os_string()]);
        push_option(&mut arguments, "--console-socket", request.console_socket.as_deref());
        push_flag(&mut arguments, "--no-pivot", request.no_pivot_root);
        push_flag(&mut arguments, "--no-new-keyring", request.no_new_keyring);
        if control.is_some() {
            arguments.extend(["--preserve-fds".into(), "1".into()]);
        }
        arguments.push(request.key.id().into());
        runc.run_with(&arguments, Gifts { stdio: request.stdio, extra: control })?;

        let undo = UndoCreate { runc: &runc, id: request.key.id(), armed: true };
        let pid = read_pid(&pid_file, "create")?;
        if left_alone.is_none() {
            let command = facts.command.first().map_or("", String::as_str);
            lookup::check_command(&request.key, pid, command, facts.path.as_deref(), &facts.cwd)?;
        }
        if let Some(path) = &request.pid_file {
            std::fs::write(path, pid.to_string()).map_err(|e| Error::io("write", path, e))?;
        }
        directory.store(&Record {
            key: request.key.clone(),
            bundle: request.bundle,
            runc: request.runc,
            pid,
            pid_start: application::start_time(pid).unwrap_or_default(),
            left_alone: left_alone.clone(),
            started: false,
            paused: false,
            must_restore: request.checkpoint.is_some(),
            start: request.checkpoint.map_or(facts.start, StartMode::Restore),
            command: facts.command,
            image: facts.image,
            terminal: facts.terminal,
            tcp: facts.tcp,
            last_failure: None,
            last_checkpoint: None,
        })?;
        undo.disarm();
        Ok(Self { config: config.clone(), key: request.key, directory: directory.clone(), pid, left_alone })
    }

    /// A container that was created before, by whatever process.
    ///
    /// # Errors
    /// When FastMig does not know it.
    pub fn open(config: Arc<Config>, key: &Key) -> Result<Self, Error> {
        let directory = Directory::of(&config, key);
        let record = directory.load(key)?;
        Ok(Self { config, key: key.clone(), directory, pid: record.pid, left_alone: record.left_alone })
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
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

    /// Starts it: the application runs, waits in standby or is restored, as was asked at its creation.
    ///
    /// # Errors
    /// When runc fails, or the restore that the creation asked for. A failed restore that an annotation asked
    /// for is no error: the container is in standby, and its status says why.
    pub fn start(&self) -> Result<(), Error> {
        let mut operation = self.begin()?;
        self.runc(&operation.record).run(&["start", self.key.id()])?;
        operation.record.started = true;
        operation.save()?;
        if !self.is_warm() {
            return Ok(());
        }
        match operation.record.start.clone() {
            StartMode::Run => self.run_command(&operation),
            StartMode::Standby => self.init()?.status().map(|_| ()),
            StartMode::Restore(path) => {
                let result = restore::perform(self, &mut operation, &restore::Request::new(path));
                match result {
                    Err(e) if operation.record.must_restore => Err(e),
                    Err(e) => {
                        tracing::error!(container = self.key.id(), error = %e.report(), "restore at start failed");
                        Ok(())
                    }
                    Ok(_) => Ok(()),
                }
            }
        }
    }

    /// Runs the container's command in a container that is in standby.
    ///
    /// # Errors
    /// When its application is not in standby, or the command cannot be executed.
    pub fn run(&self) -> Result<(), Error> {
        let operation = self.begin_warm("run the application of")?;
        restore::abandon_interrupted(self)?;
        self.require_standby("run the application of")?;
        self.run_command(&operation)
    }

    /// Init holds the new process until it is in the application's cgroup.
    fn run_command(&self, operation: &Operation<'_>) -> Result<(), Error> {
        self.set_last_pid(PID_BASE)?;
        let init = self.init()?;
        let held = match init.ask(&Request::Run)? {
            Reply::Prepared { pid } => pid,
            Reply::ExecFailed(failure) => return self.end_unexecutable(operation, &init, failure),
            other => return Err(init.nonsense(&other)),
        };
        let host = application::host_pid_of(held.get(), application::children_of(self.pid));
        let cgroup = self.application_cgroup()?;
        let path = cgroup.directory();
        cgroup.make().map_err(|e| Error::io("make", path, e))?;
        if let Some(pid) = host {
            cgroup.add(pid).map_err(|e| Error::io("put the application into", path, e))?;
        }
        match init.ask(&Request::Release)? {
            Reply::Running { .. } => Ok(()),
            Reply::ExecFailed(failure) => self.end_unexecutable(operation, &init, failure),
            other => Err(init.nonsense(&other)),
        }
    }

    /// As on runc, a command that cannot be executed ends the container with code 1; its words are on stderr.
    fn end_unexecutable(
        &self,
        operation: &Operation<'_>,
        init: &InitClient,
        failure: fastmig_control::ExecFailure,
    ) -> Result<(), Error> {
        let name = operation.record.command.first().map_or("", String::as_str);
        tracing::error!(container = self.key.id(), reason = failure.sentence(name), "command not executed");
        init.ask(&Request::End { code: 1 }).map(|_| ())
    }

    /// Starts a process beside the application; returns its host pid. It is a child of the caller's subreaper.
    ///
    /// # Errors
    /// When runc fails.
    pub fn exec(&self, request: ExecRequest) -> Result<i32, Error> {
        let record = self.directory.load(&self.key)?;
        // In standby nothing of the application forks, so this cannot race with it: the session takes a pid
        // from the bottom, which no restore needs.
        if self.is_warm() && self.application()? == ApplicationState::Standby {
            self.set_last_pid(1)?;
        }
        let name = Key::new("exec", &request.exec_id)?;
        let process = self.directory.file(&format!("exec-{}.json", name.id()));
        let pid_file = self.directory.file(&format!("exec-{}.pid", name.id()));
        std::fs::write(&process, &request.process_json).map_err(|e| Error::io("write", &process, e))?;
        let mut arguments: Vec<std::ffi::OsString> = vec!["exec".into(), "--detach".into()];
        push_option(&mut arguments, "--process", Some(&process));
        push_option(&mut arguments, "--pid-file", Some(&pid_file));
        push_option(&mut arguments, "--console-socket", request.console_socket.as_deref());
        arguments.push(self.key.id().into());
        let gifts = Gifts { stdio: request.stdio, extra: None };
        let result = self.runc(&record).run_with(&arguments, gifts).map_err(Error::from);
        let pid = result.and_then(|()| read_pid(&pid_file, "exec"));
        for file in [&process, &pid_file] {
            // Left-overs go with the directory.
            let _ = std::fs::remove_file(file);
        }
        pid
    }

    /// Sends a signal to the container's PID 1, which hands it to the application; with `all`, to everything in it.
    ///
    /// # Errors
    /// When runc fails; [`crate::Kind::NotFound`] when the container has ended.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        let record = self.directory.load(&self.key)?;
        if signal == libc::SIGSTOP && self.is_warm() && !all {
            return self.signal_application(signal);
        }
        let number = signal.to_string();
        let mut arguments = vec!["kill"];
        if all {
            arguments.push("--all");
        }
        arguments.extend([self.key.id(), &number]);
        self.runc(&record).run(&arguments)?;
        if signal == libc::SIGKILL && self.is_warm() {
            // A frozen process takes its SIGKILL only when thawed.
            let _ = self.application_cgroup().map(|cgroup| cgroup.thaw());
        }
        Ok(())
    }

    /// Nobody can forward a signal that cannot be caught: the init sends it on demand.
    fn signal_application(&self, signal: i32) -> Result<(), Error> {
        let Ok(signal) = Signal::new(signal) else {
            return Err(Error::BadName { what: "signal", value: signal.to_string() });
        };
        self.init()?.ask(&Request::Signal { signal }).map(|_| ())
    }

    /// Freezes the application; exec sessions and the init go on.
    ///
    /// # Errors
    /// When it does not freeze in time, or is not running.
    pub fn pause(&self) -> Result<(), Error> {
        let mut operation = self.begin()?;
        if self.is_warm() {
            match self.application()? {
                ApplicationState::Running => self.freeze()?,
                ApplicationState::Standby => {}
                state => return Err(self.wrong_state("pause", state)),
            }
        } else {
            self.runc(&operation.record).run(&["pause", self.key.id()])?;
        }
        operation.record.paused = true;
        operation.save()
    }

    /// Thaws the application.
    ///
    /// # Errors
    /// When it is not paused, or the freezer fails.
    pub fn resume(&self) -> Result<(), Error> {
        let mut operation = self.begin()?;
        if self.is_warm() {
            let cgroup = self.application_cgroup()?;
            cgroup.thaw().map_err(|e| Error::io("thaw", cgroup.directory(), e))?;
        } else {
            self.runc(&operation.record).run(&["resume", self.key.id()])?;
        }
        operation.record.paused = false;
        operation.save()
    }

    /// Changes the container's limits.
    ///
    /// # Errors
    /// When runc fails.
    pub fn update(&self, resources_json: &[u8]) -> Result<(), Error> {
        let operation = self.begin()?;
        let file = self.directory.file("resources.json");
        std::fs::write(&file, resources_json).map_err(|e| Error::io("write", &file, e))?;
        let path = file.to_string_lossy().into_owned();
        self.runc(&operation.record).run(&["update", "--resources", &path, self.key.id()])?;
        Ok(())
    }

    /// Host pids of every process in it.
    ///
    /// # Errors
    /// When runc fails.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let record = self.directory.load(&self.key)?;
        let text = self.runc(&record).run(&["ps", "--format", "json", self.key.id()])?;
        let pids: Option<Vec<i32>> = serde_json::from_str(&text).map_err(|source| Error::State {
            id: self.key.id().into(),
            path: "runc ps".into(),
            source,
        })?;
        Ok(pids.unwrap_or_default())
    }

    /// Takes the application out of the container; the container stays up.
    ///
    /// # Errors
    /// When there is no application, or it cannot be killed.
    pub fn standby(&self) -> Result<(), Error> {
        let _operation = self.begin_warm("put into standby")?;
        if self.application()? == ApplicationState::Standby {
            return Ok(());
        }
        self.end_application()
    }

    /// Kills the application and waits until the init says that the container is in standby.
    pub(crate) fn end_application(&self) -> Result<(), Error> {
        self.init()?.ask(&Request::Stop { signal: None })?;
        let cgroup = self.application_cgroup()?;
        cgroup
            .kill_all(self.config.limits.freeze())
            .map_err(|e| Error::io("kill the application in", cgroup.directory(), e))?;
        let deadline = std::time::Instant::now() + self.config.limits.init();
        while self.application()? != ApplicationState::Standby {
            if std::time::Instant::now() > deadline {
                return Err(Error::Init {
                    id: self.key.id().into(),
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
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
            warm: self.is_warm(),
            left_alone: record.left_alone,
            pid: record.pid,
            application,
            application_pid: inside.and_then(|s| s.state.pid()).map(fastmig_control::Pid::get),
            runs: inside.map_or(0, |s| s.runs),
            paused: record.paused,
            last_checkpoint: record.last_checkpoint,
            last_failure: record.last_failure,
        })
    }

    /// Removes the container. Removing what is gone is no error.
    ///
    /// # Errors
    /// When it still runs and `force` is not given, or runc fails.
    pub fn delete(&self, force: bool) -> Result<(), Error> {
        let record = self.directory.load(&self.key)?;
        remove(&self.config, &self.directory, &record.key, &record.runc, record.pid, force)
    }

    /// Removes whatever is left of a container after its shim died. What is already gone is no error.
    ///
    /// # Errors
    /// When something is left that cannot be removed.
    pub fn purge(config: &Config, key: &Key, runc: &runc::Options) -> Result<(), Error> {
        let directory = Directory::of(config, key);
        let (runc, pid) = match directory.load(key) {
            Ok(record) => (record.runc, record.pid),
            Err(_) => (runc.clone(), 0),
        };
        remove(config, &directory, key, &runc, pid, true)
    }

    pub(crate) fn tcp_policy(&self) -> Result<crate::spec::TcpPolicy, Error> {
        Ok(self.directory.load(&self.key)?.tcp)
    }

    pub(crate) fn begin(&self) -> Result<Operation<'_>, Error> {
        let lock = self.directory.lock(&self.key, self.config.limits.lock())?;
        let record = self.directory.load(&self.key)?;
        Ok(Operation { container: self, record, _lock: lock })
    }

    pub(crate) fn begin_warm(&self, action: &'static str) -> Result<Operation<'_>, Error> {
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

    pub(crate) fn application_cgroup(&self) -> Result<ApplicationCgroup, Error> {
        ApplicationCgroup::of(self.pid).map_err(|e| Error::io("find the cgroups of", &proc_of(self.pid), e))
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

    fn runc(&self, record: &Record) -> Runc {
        Runc::new(record.runc.clone(), self.directory.file("runc.log"), self.config.limits.runc())
    }

    fn is_alive(&self, record: &Record) -> bool {
        application::start_time(record.pid) == Some(record.pid_start) && !application::is_zombie(record.pid)
    }
}

fn state_of(status: &fastmig_control::Status) -> ApplicationState {
    match status.state {
        State::Standby => ApplicationState::Standby,
        State::Restoring { .. } => ApplicationState::Restoring,
        _ => ApplicationState::Running,
    }
}

fn proc_of(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn remove(
    config: &Config,
    directory: &Directory,
    key: &Key,
    options: &runc::Options,
    pid: i32,
    force: bool,
) -> Result<(), Error> {
    let runc = Runc::new(options.clone(), directory.file("runc.log"), config.limits.runc());
    if let Ok(cgroup) = ApplicationCgroup::of(pid) {
        if force {
            // Frozen processes would outlive their init's death.
            let _ = cgroup.kill_all(config.limits.freeze());
        }
        // runc removes the rest; a cgroup in use tells itself there.
        let _ = cgroup.remove();
    }
    let arguments: &[&str] = if force { &["delete", "--force", key.id()] } else { &["delete", key.id()] };
    match runc.run(arguments) {
        Err(e) if e.kind() != crate::Kind::NotFound => return Err(e.into()),
        _ => {}
    }
    directory.remove()
}

/// Takes a container back that was created and cannot be used.
struct UndoCreate<'a> {
    runc: &'a Runc,
    id: &'a str,
    armed: bool,
}

impl UndoCreate<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for UndoCreate<'_> {
    fn drop(&mut self) {
        if self.armed {
            if let Err(e) = self.runc.run(&["delete", "--force", self.id]) {
                tracing::warn!(container = self.id, error = %e, "a half-made container stays");
            }
        }
    }
}

fn read_pid(path: &Path, command: &str) -> Result<i32, Error> {
    let text = std::fs::read_to_string(path).ok();
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| runc::RuncError::Missing { command: command.into(), path: path.into() }.into())
}

fn push_option(arguments: &mut Vec<std::ffi::OsString>, name: &str, value: Option<&Path>) {
    if let Some(value) = value {
        arguments.extend([name.into(), value.into()]);
    }
}

fn push_flag(arguments: &mut Vec<std::ffi::OsString>, name: &str, given: bool) {
    if given {
        arguments.push(name.into());
    }
}
