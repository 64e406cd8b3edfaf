//! Where things are and how long they may take: built-in values, overridden by `/etc/fastmig/config.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::Error;

/// The operator's file.
pub const CONFIG_FILE: &str = "/etc/fastmig/config.toml";

/// FastMig's settings on one host.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the state of containers is kept; a tmpfs, emptied by a reboot.
    pub state_root: PathBuf,
    /// The directory that containers see read-only at [`fastmig_control::RUNTIME_DIR`]: the init and CRIU.
    pub runtime_dir: PathBuf,
    /// Where the logs of failed CRIU calls are kept.
    pub log_dir: PathBuf,
    /// How long things may take.
    pub limits: Limits,
    /// How checkpoints are taken.
    pub checkpoint: Checkpoint,
}

/// Time limits, in seconds.
#[derive(Debug, Clone, Deserialize)]
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
}

/// How checkpoints are taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    /// Deleted-but-open files larger than this many bytes are refused.
    pub ghost_limit: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_root: "/run/fastmig".into(),
            runtime_dir: "/usr/lib/fastmig/runtime".into(),
            log_dir: "/var/log/fastmig".into(),
            limits: Limits::default(),
            checkpoint: Checkpoint::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { runc: 60, init: 10, criu: 300, freeze: 10, lock: 330 }
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
        match std::fs::read_to_string(path) {
            Ok(text) => {
                toml::from_str(&text).map_err(|e| Error::Config { path: path.into(), source: Box::new(e) })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::io("read", path, source)),
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_means_the_built_in_values() {
        let config = Config::from_file(Path::new("/nonexistent/config.toml")).unwrap();
        assert_eq!(config.state_root, Path::new("/run/fastmig"));
    }

    #[test]
    fn a_part_may_be_given_and_the_rest_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[limits]\ncriu = 7\n").unwrap();
        let config = Config::from_file(file.path()).unwrap();
        assert_eq!((config.limits.criu, config.limits.runc), (7, 60));
    }

    #[test]
    fn a_wrong_key_is_refused_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[limits]\ncriuu = 7\n").unwrap();
        let error = Config::from_file(file.path()).unwrap_err().report();
        assert!(error.contains("line 2") && error.contains("criuu"), "{error}");
    }
}
