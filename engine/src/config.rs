//! Where things are, how long they may take and what a container is that says nothing itself: built-in values,
//! overridden by `/etc/fastmig/config.toml`.
//!
//! | file | what it does |
//! |---|---|
//! | `confinement` | what CRIU goes without |
//! | `create` | what a container made for another host may have |
//! | [`daemon`] | the daemon's settings |
//! | `error` | what a wrong file is told, with its line |
//! | [`hooks`] | the operator's commands around an operation |
//! | [`periodic`] | checkpoints that the daemon takes by itself |
//! | `ranges` | which values are possible |
//! | [`sources`] | which line each value comes from |
//! | `store` | the table of checkpoints at rest |

mod confinement;
mod create;
pub mod daemon;
mod error;
pub mod hooks;
pub mod periodic;
mod ranges;
pub mod sources;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::confinement::{Confinement, Mode as CriuMode};
pub use self::create::Create;
pub use self::daemon::Daemon;
pub use self::error::ConfigError;
pub use self::hooks::Hook;
pub use self::periodic::{Periodic, Schedule};
use self::sources::Sources;
pub use self::store::Store;
use crate::start_options::{Binds, DefaultStart, IoUring, Mode, TcpPolicy};
use crate::{policy, Error};

/// The operator's file.
pub const CONFIG_FILE: &str = "/etc/fastmig/config.toml";

/// FastMig's settings on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The OCI runtime that creates the containers, runc or crun: a path, or a name looked up in PATH.
    pub runtime: PathBuf,
    /// Where the state of containers is kept; a tmpfs, emptied by a reboot.
    pub state_root: PathBuf,
    /// The directory that containers see read-only at [`fastmig_control::RUNTIME_DIR`]: the init and CRIU.
    pub runtime_dir: PathBuf,
    /// Where the logs of failed CRIU calls are kept.
    pub log_dir: PathBuf,
    /// Where the host's own fault policies are, a file for each.
    pub policy_dir: PathBuf,
    /// What a container is that no annotation describes.
    pub defaults: Defaults,
    /// How long things may take.
    pub limits: Limits,
    /// How checkpoints are taken.
    pub checkpoint: Checkpoint,
    /// Checkpoints that the daemon takes by itself.
    pub periodic: Periodic,
    /// Where checkpoints at rest are kept, and how.
    pub store: Store,
    /// What the programs that checkpoint and restore must do without.
    pub confinement: Confinement,
    /// What a container may have that is made for another host.
    pub create: Create,
    /// The daemon.
    pub daemon: Daemon,
    /// The operator's commands around an operation, in the order in which they run.
    #[serde(rename = "hook", skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}

/// What a container is that no annotation describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Whether the init goes above its command.
    pub mode: Mode,
    /// How its application comes up.
    pub start: DefaultStart,
    /// What a checkpoint does with its established TCP connections.
    pub tcp: TcpPolicy,
    /// Whether it may use `io_uring`.
    pub io_uring: IoUring,
    /// What directories of the host, mounted for writing, are to a migration.
    pub binds: Binds,
    /// Its fault policy; `off` is none.
    pub policy: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            start: DefaultStart::default(),
            tcp: TcpPolicy::default(),
            io_uring: IoUring::default(),
            binds: Binds::default(),
            policy: policy::OFF.into(),
        }
    }
}

/// Time limits, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// One call of runc.
    pub runc: u64,
    /// One exchange with the init.
    pub init: u64,
    /// One dump or restore by CRIU.
    pub criu: u64,
    /// The application's way into the freezer.
    pub freeze: u64,
    /// The wait for another operation on the same container.
    pub lock: u64,
    /// A container's wait for what its policy decides.
    pub decision: u64,
}

/// How checkpoints are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    /// Deleted-but-open files larger than this many bytes are refused.
    pub ghost_limit: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime: "runc".into(),
            state_root: "/run/fastmig".into(),
            runtime_dir: "/usr/lib/fastmig/runtime".into(),
            log_dir: "/var/log/fastmig".into(),
            policy_dir: "/etc/fastmig/policies".into(),
            defaults: Defaults::default(),
            limits: Limits::default(),
            checkpoint: Checkpoint::default(),
            periodic: Periodic::default(),
            store: Store::default(),
            confinement: Confinement::default(),
            create: Create::default(),
            daemon: Daemon::default(),
            hooks: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { runc: 60, init: 10, criu: 300, freeze: 10, lock: 330, decision: 30 }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { ghost_limit: 64 << 20 }
    }
}

impl Config {
    /// The settings of this host.
    ///
    /// # Errors
    /// When the operator's file is there but cannot be read or is wrong; the text names the line.
    pub fn load() -> Result<Self, Error> {
        Self::from_file(Path::new(CONFIG_FILE))
    }

    /// The settings in `path`; the built-in ones when it does not exist.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::with_sources(path).map(|(config, _)| config)
    }

    /// As [`Config::from_file`], with the lines that the values come from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with_sources(path: &Path) -> Result<(Self, Sources), Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text, path)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((Self::default(), Sources::none(path))),
            Err(source) => Err(Error::io("read", path, source)),
        }
    }

    /// The settings in `text`, which is that of the file `path`.
    ///
    /// # Errors
    /// When the text is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Sources), ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError::from_toml(path, text, &e))?;
        let sources = Sources::read(text, path)?;
        ranges::check(&config, &sources)?;
        Ok((config, sources))
    }
}

impl Limits {
    /// [`Limits::runc`].
    #[must_use]
    pub fn runc(&self) -> Duration {
        Duration::from_secs(self.runc)
    }

    /// [`Limits::init`].
    #[must_use]
    pub fn init(&self) -> Duration {
        Duration::from_secs(self.init)
    }

    /// [`Limits::criu`].
    #[must_use]
    pub fn criu(&self) -> Duration {
        Duration::from_secs(self.criu)
    }

    /// [`Limits::freeze`].
    #[must_use]
    pub fn freeze(&self) -> Duration {
        Duration::from_secs(self.freeze)
    }

    /// [`Limits::lock`].
    #[must_use]
    pub fn lock(&self) -> Duration {
        Duration::from_secs(self.lock)
    }

    /// [`Limits::decision`].
    #[must_use]
    pub fn decision(&self) -> Duration {
        Duration::from_secs(self.decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/etc/fastmig/config.toml";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new(FILE)).map(|(config, _)| config).map_err(|e| e.to_string())
    }

    #[test]
    fn a_missing_file_means_the_built_in_values() {
        let config = Config::from_file(Path::new("/nonexistent/config.toml")).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.state_root, Path::new("/run/fastmig"));
    }

    #[test]
    fn a_part_may_be_given_and_the_rest_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "runtime = \"crun\"\n[limits]\ncriu = 7\n[defaults]\ntcp = \"keep\"\n")
            .unwrap();
        let config = Config::from_file(file.path()).unwrap();
        assert_eq!((config.limits.criu, config.limits.runc), (7, 60));
        assert_eq!((config.defaults.tcp, config.defaults.mode), (TcpPolicy::Keep, Mode::Warm));
        assert_eq!(config.runtime, Path::new("crun"));
    }

    #[test]
    fn the_shipped_file_has_every_setting_with_its_built_in_value() {
        let shipped = include_str!("../../containerd-config/fastmig.toml");
        let (config, sources) = Config::parse(shipped, Path::new(FILE)).unwrap();
        assert_eq!(config, Config::default());
        let all = toml::Value::try_from(Config::default()).unwrap();
        for (table, value) in all.as_table().unwrap() {
            for key in value.as_table().map_or(vec![table.clone()], |inner| {
                inner.keys().map(|key| format!("{table}.{key}")).collect()
            }) {
                assert!(sources.line(&key).is_some(), "{key} is not in the shipped file");
            }
        }
    }

    #[test]
    fn a_wrong_line_is_named_with_its_cause() {
        for (text, line, cause) in [
            ("[limits]\ncriuu = 7\n", 2, "criuu"),
            ("\n\nrunc = 1\n", 3, "runc"),
            ("[limits]\ncriu = \"7\"\n", 2, "whole number"),
            ("[limits]\ncriu = -7\n", 2, "-7"),
            ("[defaults]\nmode = \"hot\"\n", 2, "hot"),
            ("[defaults]\n\nstart = \"restore=/x\"\n", 3, "restore=/x"),
            ("state_root = \"/run\n", 1, "string"),
            ("[limits]\n[limits]\n", 2, "duplicate"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("{FILE}, line {line}: ")), "{text:?}: {error}");
            assert!(error.contains(cause), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(parse(&text).unwrap(), Config::default());
    }
}
