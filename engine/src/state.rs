//! What is known of a container across processes: its directory, its state file, and the lock of who may operate.
//!
//! `<state_root>/<namespace>/<id>/` holds `state.json` (replaced by rename), `init.sock` (where the init
//! listens) and `lock`. Shim, wrapper and daemon never race: each operation holds the lock from begin to end.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::config::Schedule;
use crate::files::replace;
use crate::migration::{Mark, Throttle};
use crate::names::Names;
use crate::start_options::{Binds, StartMode, TcpPolicy, Volumes};
use crate::tree::application;
use crate::tree::cgroup::ApplicationCgroup;
use crate::{runc, Config, Error};

/// A container's name: namespace and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    namespace: String,
    id: String,
}

impl Key {
    /// A name that is safe as a path component.
    ///
    /// # Errors
    /// When it is not.
    pub fn new(namespace: &str, id: &str) -> Result<Self, Error> {
        check_name("namespace", namespace)?;
        check_name("id", id)?;
        Ok(Self { namespace: namespace.into(), id: id.into() })
    }

    /// The namespace (containerd's, or the client's name).
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

fn check_name(what: &'static str, value: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    let dots = value.chars().all(|c| c == '.');
    if value.is_empty() || value.len() > 128 || dots || !value.chars().all(allowed) {
        return Err(Error::BadName { what, value: value.into() });
    }
    Ok(())
}

/// What a container's application is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplicationState {
    /// The container is created and not started.
    Created,
    /// It runs (or is frozen by a pause).
    Running,
    /// The container is up without it.
    Standby,
    /// It is being restored.
    Restoring,
    /// The container has ended.
    Ended,
}

impl ApplicationState {
    /// Its name in machine-read answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Standby => "standby",
            Self::Restoring => "restoring",
            Self::Ended => "ended",
        }
    }
}

impl fmt::Display for ApplicationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "not started",
            Self::Running => "running",
            Self::Standby => "in standby",
            Self::Restoring => "being restored",
            Self::Ended => "gone with its container",
        })
    }
}

/// A failed operation, for whoever asks later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// `checkpoint`, `restore`, ...
    pub operation: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
}

impl Failure {
    pub(crate) fn now(operation: &str, error: &Error) -> Self {
        Self::because(operation, &error.report())
    }

    pub(crate) fn because(operation: &str, reason: &str) -> Self {
        Self { operation: operation.into(), at: now(), reason: reason.into() }
    }
}

/// A process, told from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    pub(crate) pid: i32,
    pub(crate) start: u64,
}

impl Record {
    /// The container's PID 1, told from a later process of its number.
    pub(crate) fn init_mark(&self) -> ProcessMark {
        ProcessMark { pid: self.pid, start: self.pid_start }
    }
}

impl ProcessMark {
    /// That of a living process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: application::start_time(pid)? })
    }

    /// Whether it still runs.
    pub(crate) fn runs(self) -> bool {
        Self::of(self.pid) == Some(self) && !application::is_zombie(self.pid)
    }
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: Key,
    pub(crate) bundle: PathBuf,
    pub(crate) runc: runc::Options,
    /// Host pid and start time of the container's PID 1; 0 until runc has made it.
    pub(crate) pid: i32,
    pub(crate) pid_start: u64,
    /// Where its creator wants that pid too.
    #[serde(default)]
    pub(crate) pid_file: Option<PathBuf>,
    /// The runc whose attendant removes the directory when it ends.
    #[serde(default)]
    pub(crate) attendant_of: Option<ProcessMark>,
    /// The application's own; it must be found after PID 1 is gone and its number taken by another.
    pub(crate) cgroup: Option<ApplicationCgroup>,
    /// Why the container was left to runc; `None` when it is warm.
    pub(crate) left_alone: Option<String>,
    pub(crate) started: bool,
    pub(crate) paused: bool,
    pub(crate) start: StartMode,
    /// A restore at the start that fails makes the start fail.
    pub(crate) must_restore: bool,
    /// The image's command.
    pub(crate) command: Vec<String>,
    pub(crate) image: Option<String>,
    #[serde(default)]
    pub(crate) names: Names,
    pub(crate) terminal: bool,
    pub(crate) tcp: TcpPolicy,
    #[serde(default)]
    pub(crate) volumes: Volumes,
    #[serde(default)]
    pub(crate) binds: Binds,
    /// What decides about its application when that has ended; `None` when nothing does.
    #[serde(default)]
    pub(crate) policy: Option<String>,
    /// How often the daemon checkpoints it; `None` when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schedule: Option<Schedule>,
    /// Whether the init was told of changes to the command.
    #[serde(default)]
    pub(crate) changed: bool,
    /// The file with what it has written, or the directory where that is, as far as its creator knows.
    #[serde(default)]
    pub(crate) log: Option<PathBuf>,
    /// The nftables table that holds connections of an application which is to come back.
    #[serde(default)]
    pub(crate) network_lock: Option<String>,
    /// The migration that it is an end of.
    #[serde(default)]
    pub(crate) migration: Option<Mark>,
    /// Processor time that was taken from its application for a migration, and is to be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) throttle: Option<Throttle>,
    pub(crate) last_failure: Option<Failure>,
    pub(crate) last_checkpoint: Option<PathBuf>,
}

/// A container's directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn of(config: &Config, key: &Key) -> Self {
        Self(config.state_root.join(key.namespace()).join(key.id()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn make(&self, key: &Key) -> Result<(), Error> {
        let private =
            |path: &Path, recursive| DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        if let Some(parent) = self.0.parent() {
            private(parent, true).map_err(|e| Error::io("make", parent, e))?;
        }
        private(&self.0, false).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::AlreadyExists { id: key.id().into() },
            _ => Error::io("make", &self.0, e),
        })
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        match std::fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &self.0, e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn load(&self, key: &Key) -> Result<Record, Error> {
        let path = self.file("state.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| Error::State {
                id: key.id().into(),
                path,
                source,
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound { id: key.id().into() })
            }
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }

    pub(crate) fn store(&self, record: &Record) -> Result<(), Error> {
        let path = self.file("state.json");
        let text = serde_json::to_vec_pretty(record).map_err(|source| Error::State {
            id: record.key.id().into(),
            path: path.clone(),
            source,
        })?;
        replace(&path, &text).map_err(|e| Error::io("write", &path, e))
    }

    /// Takes the container for one operation; waits for another one at most `limit`.
    pub(crate) fn lock(&self, key: &Key, limit: Duration) -> Result<Lock, Error> {
        let path = self.file("lock");
        let deadline = Instant::now() + limit;
        let mut file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| {
            match e.kind() {
                std::io::ErrorKind::NotFound => Error::NotFound { id: key.id().into() },
                _ => Error::io("open", &path, e),
            }
        })?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Lock { _file: lock }),
                Err((again, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    file = again;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(Error::Busy { id: key.id().into() });
                }
                Err((_, errno)) => return Err(Error::io("lock", &path, errno.into())),
            }
        }
    }
}

/// The right to operate on a container, given up on drop.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

/// The keys of all containers that FastMig knows on this host.
///
/// # Errors
/// When the state directory exists but cannot be read.
pub fn list(config: &Config) -> Result<Vec<Key>, Error> {
    let mut keys = Vec::new();
    for namespace in names_in(&config.state_root)? {
        for id in names_in(&config.state_root.join(&namespace))? {
            if let Ok(key) = Key::new(&namespace, &id) {
                if Directory::of(config, &key).file("state.json").exists() {
                    keys.push(key);
                }
            }
        }
    }
    keys.sort_by(|a, b| (a.namespace(), a.id()).cmp(&(b.namespace(), b.id())));
    Ok(keys)
}

/// Whether somebody was killed while making a container of this name: there is a directory, and no record in it.
#[must_use]
pub fn is_half_made(config: &Config, key: &Key) -> bool {
    let directory = Directory::of(config, key);
    directory.path().exists() && !directory.file("state.json").exists()
}

/// The one container, in any namespace or in the given one, whose id is `text`; or whose client calls it so; or whose
/// id begins with it.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(config: &Config, text: &str, namespace: Option<&str>) -> Result<Key, Error> {
    let keys: Vec<Key> =
        list(config)?.into_iter().filter(|key| namespace.is_none_or(|n| key.namespace() == n)).collect();
    let fits: [&dyn Fn(&Key) -> bool; 3] =
        [&|key| key.id() == text, &|key| names(config, key).iter().any(|name| name == text), &|key| {
            !text.is_empty() && key.id().starts_with(text)
        }];
    for fit in fits {
        match keys.iter().filter(|key| fit(key)).collect::<Vec<_>>()[..] {
            [] => {}
            [key] => return Ok(key.clone()),
            _ => {
                let what = "id (it fits several; give the namespace or more of it)";
                return Err(Error::BadName { what, value: text.into() });
            }
        }
    }
    Err(Error::NotFound { id: text.into() })
}

/// What its client calls a container now. One whose state cannot be read has no name.
fn names(config: &Config, key: &Key) -> Vec<String> {
    let record = Directory::of(config, key).load(key);
    record.map(|record| record.names.now(key.id(), &record.bundle)).unwrap_or_default()
}

fn names_in(directory: &Path) -> Result<Vec<String>, Error> {
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(e) => Err(Error::io("list", directory, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for bad in ["", "..", ".", "a/b", "a b", "\0", &"x".repeat(129)] {
            assert!(Key::new("default", bad).is_err(), "{bad:?}");
        }
        for good in ["redis", "k8s.io", "a_b-c+1"] {
            assert!(Key::new("default", good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn only_one_holds_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let config = Config { state_root: root.path().into(), ..Config::default() };
        let key = Key::new("n", "c").unwrap();
        let directory = Directory::of(&config, &key);
        directory.make(&key).unwrap();
        assert_eq!(directory.make(&key).unwrap_err().kind(), crate::Kind::AlreadyExists);
        let held = directory.lock(&key, Duration::ZERO).unwrap();
        let second = directory.lock(&key, Duration::from_millis(10)).unwrap_err();
        assert_eq!(second.kind(), crate::Kind::Unavailable);
        drop(held);
        directory.lock(&key, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_container_is_found_by_what_begins_its_id() {
        let root = tempfile::tempdir().unwrap();
        let config = Config { state_root: root.path().into(), ..Config::default() };
        for (namespace, id) in [("a", "web-1"), ("a", "web-2"), ("b", "db")] {
            let key = Key::new(namespace, id).unwrap();
            let directory = Directory::of(&config, &key);
            directory.make(&key).unwrap();
            std::fs::write(directory.file("state.json"), "{}").unwrap();
        }
        assert_eq!(find(&config, "d", None).unwrap().id(), "db");
        assert_eq!(find(&config, "web-1", None).unwrap().id(), "web-1");
        assert!(find(&config, "web", None).is_err());
        assert_eq!(find(&config, "db", Some("a")).unwrap_err().kind(), crate::Kind::NotFound);
    }
}
