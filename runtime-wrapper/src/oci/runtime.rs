//! The runtime behind us, and the containers that it made with our help.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::Parser;
use fastmig_engine::{runc, state, Config, Container, Error, Key, Kind, Voice};

use super::{go_flags, report};
use crate::command_line::Global;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) config: Arc<Config>,
    pub(crate) global: Global,
    /// runc, or what stands in its place.
    binary: PathBuf,
    /// Whether we may do more than hand over.
    host_root: bool,
}

impl Runtime {
    pub(crate) fn new(config: Arc<Config>, global: Global, binary: PathBuf) -> Self {
        Self { config, global, binary, host_root: is_host_root() }
    }

    /// Reads a command's arguments; a wrong one ends the program with runc's exit code.
    pub(crate) fn parse<T: Parser>(&self, name: &str, arguments: &[OsString]) -> Result<T, ExitCode> {
        let arguments = go_flags::with_two_dashes(&T::command(), arguments);
        let words = [format!("fastmig {name}").into()].into_iter().chain(arguments);
        // An option may be there twice: podman says --leave-running so, and runc takes it.
        let command = T::command().args_override_self(true);
        let read = command.try_get_matches_from(words).and_then(|matches| T::from_arg_matches(&matches));
        read.map_err(|e| {
            // Nothing is left to tell it to.
            let _ = e.print();
            let log = self.global.runc_log();
            if e.use_stderr() && log.path.is_some() {
                report::say_text(&log, e.to_string().lines().next().unwrap_or_default());
            }
            ExitCode::from(u8::from(e.use_stderr()))
        })
    }

    /// Which runc, and its global options.
    pub(crate) fn options(&self) -> runc::Options {
        let binary = self.binary.clone();
        let root = self.global.root.as_deref().map_or_else(|| default_root(&binary), canonical);
        runc::Options { binary, root, systemd_cgroup: self.global.systemd_cgroup }
    }

    /// runc's words go where the caller wants them.
    pub(crate) fn voice(&self) -> Voice {
        Voice::Clients(self.global.runc_log())
    }

    pub(crate) fn key(&self, id: &str) -> Result<Key, Error> {
        Key::new(&self.options().namespace(), id)
    }

    /// Whether somebody uses us in runc's place; otherwise it is a person who asks.
    pub(crate) fn is_called_by_client(&self) -> bool {
        self.global.root.is_some() || self.global.log.is_some()
    }

    /// Whether a person asks who may do more than hand over.
    pub(crate) fn is_called_by_operator(&self) -> bool {
        !self.is_called_by_client() && self.host_root
    }

    /// Whether runc has a container of this id, which it made without us.
    pub(crate) fn is_runcs(&self, id: &str) -> bool {
        // A path that leads elsewhere is no id.
        Key::new("any", id).is_ok() && self.options().root.join(id).exists()
    }

    /// Whether a new container can have FastMig's init at all.
    pub(crate) fn may_do_more(&self) -> bool {
        self.host_root
    }

    /// The container `id` below the caller's `--root`, if FastMig knows it.
    pub(crate) fn known(&self, id: &str) -> Result<Option<Container>, Error> {
        if !self.host_root {
            return Ok(None);
        }
        // What cannot be a name of ours is runc's to judge.
        let Ok(key) = self.key(id) else { return Ok(None) };
        match Container::open(self.config.clone(), &key) {
            Ok(container) => Ok(Some(container.with_voice(self.voice()))),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether somebody was killed while making container `id`.
    pub(crate) fn is_half_made(&self, id: &str) -> bool {
        self.host_root && self.key(id).is_ok_and(|key| state::is_half_made(&self.config, &key))
    }

    /// Removes whatever is there of container `id`.
    pub(crate) fn purge(&self, id: &str) -> Result<(), Error> {
        Container::purge(&self.config, &self.key(id)?, &self.options())
    }

    /// Does `work` on container `id`; one that FastMig does not know is runc's.
    pub(crate) fn on(
        &self,
        id: &str,
        command: &str,
        raw: &[OsString],
        work: impl FnOnce(&Container) -> Result<(), Error>,
    ) -> ExitCode {
        match self.known(id) {
            Ok(None) => self.hand_over(command, raw),
            Ok(Some(container)) => self.conclude(work(&container).map(|()| ExitCode::SUCCESS)),
            Err(e) => self.conclude(Err(e)),
        }
    }

    /// Becomes runc: `name` and its arguments, untouched. Returns only when that fails.
    pub(crate) fn hand_over(&self, name: &str, arguments: &[OsString]) -> ExitCode {
        let mut command = self.command();
        command.args(self.global.arguments()).arg(name).args(arguments);
        self.become_it(command)
    }

    /// Becomes `command`. Returns only when that fails.
    pub(crate) fn become_it(&self, mut command: Command) -> ExitCode {
        let binary = &self.binary;
        if is_ourselves(binary) {
            let text = format!(
                "{} is fastmig itself: set `runtime` in /etc/fastmig/config.toml to the path of runc or crun",
                binary.display()
            );
            return self.refuse(&text);
        }
        let error = command.exec();
        self.refuse(&format!("could not start {}: {error}: is runc installed?", binary.display()))
    }

    pub(crate) fn command(&self) -> Command {
        Command::new(&self.binary)
    }

    /// The exit code for an outcome, after saying why, as runc would.
    pub(crate) fn conclude(&self, outcome: Result<ExitCode, Error>) -> ExitCode {
        outcome.unwrap_or_else(|e| {
            report::say(&self.global.runc_log(), &e);
            ExitCode::FAILURE
        })
    }

    /// Says why what was asked for is not possible.
    pub(crate) fn refuse(&self, text: &str) -> ExitCode {
        report::say_text(&self.global.runc_log(), text);
        ExitCode::FAILURE
    }
}

/// What is kept must mean the same from any working directory.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// The one name of a directory, which need not be there yet.
fn canonical(path: &Path) -> PathBuf {
    let path = absolute(path);
    let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(parent).unwrap_or(path)
}

fn default_root(binary: &Path) -> PathBuf {
    let crun = binary.file_name().is_some_and(|name| name == "crun");
    Path::new("/run").join(if crun { "crun" } else { "runc" })
}

/// Root, and not that of a user namespace.
fn is_host_root() -> bool {
    const EVERYBODY: [&str; 3] = ["0", "0", "4294967295"];
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    nix::unistd::geteuid().is_root() && map.split_whitespace().eq(EVERYBODY)
}

/// Whether the runtime behind us would be ourselves, without end.
fn is_ourselves(binary: &Path) -> bool {
    let identity = |path: &Path| -> io::Result<(u64, u64)> {
        let status = std::fs::metadata(path)?;
        Ok((status.dev(), status.ino()))
    };
    let found = if binary.components().count() > 1 {
        Some(binary.to_path_buf())
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|directory| directory.join(binary)).find(|file| file.is_file())
    };
    let us = identity(Path::new("/proc/self/exe"));
    found.is_some_and(|found| matches!((identity(&found), us), (Ok(a), Ok(b)) if a == b))
}
