//! Creating a container: the spec is rewritten, the init's socket made, runc called.
//!
//! Two ways lead there. [`Container::create`] calls `runc create`. Where runc itself is to create, start and wait in
//! one command, [`Container::prepare`] does everything up to runc's part and [`Container::attend`] all after it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastmig_control::CONTROL_FD;

use crate::names::Names;
use crate::runc::{Gifts, Runc, RuncError, StdioFds, Voice};
use crate::spec::{Facts, Spec};
use crate::start_options::StartMode;
use crate::state::{Directory, Key, ProcessMark, Record};
use crate::tree::cgroup::ApplicationCgroup;
use crate::tree::{apparmor, application};
use crate::{bundle, init, lookup, output, policy, runc, Config, Container, Error, Kind};

/// How long an attendant may take.
const CLEARED_AWAY: Duration = Duration::from_secs(2);

/// What a new container is made from.
#[derive(Debug)]
pub struct CreateRequest {
    /// Its name.
    pub key: Key,
    /// The OCI bundle.
    pub bundle: PathBuf,
    /// Which runc, and its global options.
    pub runc: runc::Options,
    /// Where runc's words go.
    pub voice: Voice,
    /// The standard streams of the container.
    pub stdio: StdioFds,
    /// Where runc sends the terminal's master, when the spec asks for a terminal.
    pub console_socket: Option<PathBuf>,
    /// runc's `--no-pivot`.
    pub no_pivot_root: bool,
    /// runc's `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// The caller's descriptors that the command is to find from 3 on: runc's `--preserve-fds`.
    pub preserved: Vec<OwnedFd>,
    /// Instead of what the annotation or the host's default says. A restore that fails makes the start fail then.
    pub start: Option<StartMode>,
    /// The file that its output goes to, if it is one.
    pub log: Option<PathBuf>,
    /// Where the pid of the container's PID 1 is written too.
    pub pid_file: Option<PathBuf>,
}

/// All that is made before runc is called; taken back on drop.
#[derive(Debug)]
pub struct Prepared {
    config: Arc<Config>,
    directory: Directory,
    record: Record,
    facts: Facts,
    bundle: PathBuf,
    request: CreateRequest,
    keep: bool,
}

impl Container {
    /// Creates a container: its PID 1 waits for [`Container::start`].
    ///
    /// # Errors
    /// When the name is taken, the spec or an annotation is wrong, the command is not there, or runc fails;
    /// nothing is left of the container then.
    pub fn create(config: Arc<Config>, request: CreateRequest) -> Result<Self, Error> {
        let mut prepared = Self::prepare(config, request)?;
        let runc = prepared.runc();
        let stdio = std::mem::take(&mut prepared.request.stdio);
        let preserved = prepared.take_descriptors();
        let mut arguments = vec!["create".into()];
        arguments.extend(prepared.arguments(preserved.len()));
        let mut undo = UndoCreate { runc: &runc, key: prepared.record.key.clone(), armed: false };
        if let Err(e) = runc.run_with(&arguments, Gifts { stdio, preserved }) {
            // It undoes its own failures, but was killed here.
            undo.armed = matches!(e, RuncError::TimedOut { .. });
            return Err(e.into());
        }
        undo.armed = true;
        let pid = runc::read_pid(&prepared.pid_file(), "create")?;
        prepared.check_command(pid)?;
        prepared.record.created(pid);
        prepared.directory.store(&prepared.record)?;
        if let Some(path) = &prepared.record.pid_file {
            std::fs::write(path, pid.to_string()).map_err(|e| Error::io("write", path, e))?;
        }
        undo.disarm();
        Ok(prepared.into_container())
    }

    /// Makes everything that a container needs before runc is called.
    ///
    /// # Errors
    /// When the name is taken, or the spec or an annotation is wrong.
    pub fn prepare(config: Arc<Config>, request: CreateRequest) -> Result<Prepared, Error> {
        let mut spec = Spec::load(&request.bundle, &config)?;
        let facts = spec.facts()?;
        let log = request.log.clone().or_else(|| output::of_pod(&spec));
        if let Some(name) = &facts.policy {
            policy::load(&config, name)?;
        }
        let names = Names::of(&spec);
        let directory = Directory::of(&config, &request.key);
        make(&config, &directory, &request.key)?;
        let mut prepared = Prepared {
            record: Record { log, ..record(&request, &facts, names) },
            config,
            directory,
            facts,
            bundle: request.bundle.clone(),
            keep: false,
            request,
        };
        if prepared.facts.left_alone.is_none() {
            prepared.put_init_above(&mut spec)?;
        }
        Ok(prepared)
    }
}

/// A container of the same name may have ended just now: its attendant is about to clear it away. Or runc has deleted it
/// without us: then nobody will.
fn make(config: &Config, directory: &Directory, key: &Key) -> Result<(), Error> {
    let deadline = Instant::now() + CLEARED_AWAY;
    loop {
        match directory.make(key) {
            Err(e) if e.kind() == Kind::AlreadyExists => {
                if is_forgotten(config, directory, key) {
                    directory.remove()?;
                } else if Instant::now() < deadline && is_ending(directory, key) {
                    std::thread::sleep(Duration::from_millis(2));
                } else {
                    return Err(e);
                }
            }
            result => return result,
        }
    }
}

/// Its PID 1 has ended, nobody attends to it, and runc does not know it.
fn is_forgotten(config: &Config, directory: &Directory, key: &Key) -> bool {
    let Ok(record) = directory.load(key) else { return false };
    let ended = record.has_lost_its_init();
    let attended = record.attendant_of.is_some_and(ProcessMark::runs);
    let runc = Runc::new(record.runc, "/dev/null".into(), config.limits.runc());
    let unknown = || runc.run(&["state", key.id()]).is_err_and(|e| e.kind() == Kind::NotFound);
    ended && !attended && unknown()
}

fn is_ending(directory: &Directory, key: &Key) -> bool {
    directory.load(key).is_ok_and(|record| record.attendant_of.is_some() && record.has_lost_its_init())
}

fn record(request: &CreateRequest, facts: &Facts, names: Names) -> Record {
    Record {
        migration: None,
        throttle: None,
        key: request.key.clone(),
        bundle: request.bundle.clone(),
        runc: request.runc.clone(),
        pid: 0,
        pid_start: 0,
        pid_file: request.pid_file.clone(),
        attendant_of: None,
        cgroup: None,
        left_alone: facts.left_alone.clone(),
        started: false,
        paused: false,
        must_restore: matches!(request.start, Some(StartMode::Restore(_))),
        start: request.start.clone().unwrap_or_else(|| facts.start.clone()),
        command: facts.command.clone(),
        image: facts.image.clone(),
        names,
        terminal: facts.terminal,
        tcp: facts.tcp,
        volumes: facts.volumes.clone(),
        binds: facts.binds,
        changed: false,
        log: None,
        policy: facts.policy.clone().filter(|_| facts.left_alone.is_none()),
        schedule: facts.schedule.filter(|_| facts.left_alone.is_none()),
        network_lock: None,
        last_failure: None,
        last_checkpoint: None,
    }
}

impl Record {
    /// runc has made it.
    pub(crate) fn created(&mut self, pid: i32) {
        self.pid = pid;
        self.pid_start = application::start_time(pid).unwrap_or_default();
        self.cgroup = ApplicationCgroup::of(pid).ok().filter(|_| self.left_alone.is_none());
    }

    /// Whether it had a PID 1, and that process is reaped.
    fn has_lost_its_init(&self) -> bool {
        self.pid != 0 && ProcessMark::of(self.pid) != Some(self.init_mark())
    }
}

impl Prepared {
    /// The caller's descriptors keep their numbers; the init's socket comes after them.
    fn put_init_above(&mut self, spec: &mut Spec) -> Result<(), Error> {
        let preserved = i32::try_from(self.request.preserved.len()).unwrap_or(i32::MAX - CONTROL_FD);
        spec.put_init_above(&self.config.runtime_dir, CONTROL_FD + preserved)?;
        if let Some(profile) = apparmor::for_container(&self.config) {
            spec.confine(profile, apparmor::for_init(&self.config))?;
        }
        self.bundle = bundle::stand_in(self.directory.path(), &self.request.bundle, spec)?;
        self.request.preserved.push(init::listener(self.directory.path())?);
        Ok(())
    }

    /// The options that runc's `create` and `run` share, the container's id at the end; `preserved` is the number of
    /// the descriptors from 3 on that runc is given.
    #[must_use]
    pub fn arguments(&self, preserved: usize) -> Vec<OsString> {
        let mut arguments = vec!["--bundle".into(), self.bundle.clone().into_os_string()];
        arguments.extend(["--pid-file".into(), self.pid_file().into_os_string()]);
        if let Some(socket) = &self.request.console_socket {
            arguments.extend(["--console-socket".into(), socket.into()]);
        }
        if self.request.no_pivot_root {
            arguments.push("--no-pivot".into());
        }
        if self.request.no_new_keyring {
            arguments.push("--no-new-keyring".into());
        }
        if preserved > 0 {
            arguments.extend(["--preserve-fds".into(), preserved.to_string().into()]);
        }
        arguments.push(self.record.key.id().into());
        arguments
    }

    /// What runc must inherit, from descriptor 3 on.
    #[must_use]
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.request.preserved)
    }

    /// Writes down what [`Container::attend`] needs to know, in another process. This one is about to become runc.
    ///
    /// # Errors
    /// When its state cannot be written.
    pub fn announce(&mut self) -> Result<(), Error> {
        let ourselves = i32::try_from(std::process::id()).unwrap_or(0);
        self.record.attendant_of = ProcessMark::of(ourselves);
        self.directory.store(&self.record)
    }

    /// Leaves it to the attendant, which has been started.
    pub fn leave(mut self) {
        self.keep = true;
    }

    fn runc(&self) -> Runc {
        Runc::new(self.record.runc.clone(), self.directory.file("runc.log"), self.config.limits.runc())
            .with_voice(self.request.voice.clone())
    }

    fn pid_file(&self) -> PathBuf {
        pid_file(&self.directory)
    }

    /// runc looks the command up itself, but would find the init.
    fn check_command(&self, pid: i32) -> Result<(), Error> {
        if self.facts.left_alone.is_some() {
            return Ok(());
        }
        let command = self.facts.command.first().map_or("", String::as_str);
        lookup::check_command(&self.record.key, pid, command, self.facts.path.as_deref(), &self.facts.cwd)
    }

    fn into_container(mut self) -> Container {
        self.keep = true;
        Container {
            config: self.config.clone(),
            key: self.record.key.clone(),
            directory: self.directory.clone(),
            pid: self.record.pid,
            left_alone: self.record.left_alone.clone(),
            voice: self.request.voice.clone(),
            criu: Arc::default(),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(e) = self.directory.remove() {
            tracing::warn!(error = %e.report(), "the directory of a failed container stays");
        }
    }
}

/// Where runc writes the pid of the container's PID 1.
pub(crate) fn pid_file(directory: &Directory) -> PathBuf {
    directory.file("init.pid")
}

/// Takes a container back that was created and cannot be used.
struct UndoCreate<'a> {
    runc: &'a Runc,
    key: Key,
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
            if let Err(e) = self.runc.run(&["delete", "--force", self.key.id()]) {
                tracing::warn!(container = self.key.id(), error = %e, "a half-made container stays");
            }
        }
    }
}
