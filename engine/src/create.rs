//! Creating a container: the spec is rewritten, the init's socket made, runc called.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cgroup::ApplicationCgroup;
use crate::runc::{Gifts, Runc, StdioFds};
use crate::spec::Spec;
use crate::start_options::StartMode;
use crate::state::{Directory, Key, Record};
use crate::{application, init, lookup, runc, Config, Container, Error};

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
        let pid = runc::read_pid(&pid_file, "create")?;
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
            cgroup: ApplicationCgroup::of(pid).ok().filter(|_| left_alone.is_none()),
            left_alone: left_alone.clone(),
            started: false,
            paused: false,
            must_restore: request.checkpoint.is_some(),
            start: request.checkpoint.map_or(facts.start, StartMode::Restore),
            command: facts.command,
            image: facts.image,
            terminal: facts.terminal,
            tcp: facts.tcp,
            network_lock: None,
            last_failure: None,
            last_checkpoint: None,
        })?;
        undo.disarm();
        Ok(Self { config: config.clone(), key: request.key, directory: directory.clone(), pid, left_alone })
    }
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

fn push_option(arguments: &mut Vec<OsString>, name: &str, value: Option<&Path>) {
    if let Some(value) = value {
        arguments.extend([name.into(), value.into()]);
    }
}

fn push_flag(arguments: &mut Vec<OsString>, name: &str, given: bool) {
    if given {
        arguments.push(name.into());
    }
}
