//! The OCI spec, rewritten so that FastMig's init stands above the image's command.
//!
//! The file is edited as a JSON value, not through a typed model: what this code does not know survives.
//!
//! | file | what it does |
//! |---|---|
//! | here | reads and writes it, and says what the engine needs to know of it |
//! | `annotations` | what its creator has decided |
//! | `left_alone` | whether it is left to runc |
//! | `edit` | the init above its command, profiles, system calls |

mod annotations;
mod edit;
mod left_alone;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{Defaults, Periodic, Schedule};
use crate::files::replace;
use crate::start_options::{Binds, StartMode, TcpPolicy, Volumes};
use crate::{Config, Error};

pub use annotations::{
    BINDS, CHECKPOINT_EVERY, CHECKPOINT_KEEP, IO_URING, MODE, POLICY, START, TCP, VOLUMES,
};

/// Why a spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The bundle has no readable `config.json`.
    #[error("could not read or write {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no JSON.
    #[error("{path:?} is not valid JSON")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// It is JSON, but no OCI spec.
    #[error("the OCI spec's {field} is not {expected}")]
    Shape {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// A bundle's `config.json`.
#[derive(Debug)]
pub(crate) struct Spec {
    value: Value,
    /// What holds where there is no annotation.
    defaults: Defaults,
    periodic: Periodic,
}

/// What the engine needs to know of a spec.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) command: Vec<String>,
    pub(crate) path: Option<String>,
    pub(crate) cwd: String,
    pub(crate) terminal: bool,
    pub(crate) start: StartMode,
    pub(crate) tcp: TcpPolicy,
    pub(crate) volumes: Volumes,
    pub(crate) binds: Binds,
    pub(crate) policy: Option<String>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) image: Option<String>,
    /// Why the container is to be left to runc, if it is.
    pub(crate) left_alone: Option<String>,
}

impl Spec {
    pub(crate) fn load(bundle: &Path, config: &Config) -> Result<Self, SpecError> {
        let path = bundle.join("config.json");
        let text = std::fs::read(&path).map_err(|source| SpecError::File { path: path.clone(), source })?;
        match serde_json::from_slice(&text) {
            Ok(value) => {
                Ok(Self { value, defaults: config.defaults.clone(), periodic: config.periodic.clone() })
            }
            Err(source) => Err(SpecError::Syntax { path, source }),
        }
    }

    pub(crate) fn store(&self, path: &Path) -> Result<(), SpecError> {
        let text = serde_json::to_vec(&self.value)
            .map_err(|source| SpecError::Syntax { path: path.into(), source })?;
        replace(path, &text).map_err(|source| SpecError::File { path: path.into(), source })
    }

    pub(crate) fn facts(&self) -> Result<Facts, Error> {
        let process = &self.value["process"];
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let environment = strings(&process["env"]);
        let command = strings(&process["args"]);
        self.io_uring()?;
        Ok(Facts {
            left_alone: self.why_left_alone(&command)?,
            path: environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=").map(str::to_owned)),
            cwd: process["cwd"].as_str().unwrap_or("/").to_owned(),
            terminal: process["terminal"].as_bool().unwrap_or(false),
            start: self.start_mode()?,
            tcp: self.tcp_policy()?,
            volumes: self.volumes()?,
            binds: self.binds()?,
            policy: self.policy()?,
            schedule: self.schedule()?,
            image: ["io.kubernetes.cri.image-name", "nerdctl/image", "org.opencontainers.image.ref.name"]
                .iter()
                .find_map(|key| self.annotation(key).map(str::to_owned)),
            command,
        })
    }

    /// What is mounted at `destination`.
    pub(crate) fn mount_source(&self, destination: &str) -> Option<&Path> {
        let mounts = self.value["mounts"].as_array()?;
        mounts.iter().find(|mount| mount["destination"] == destination)?["source"].as_str().map(Path::new)
    }
}
