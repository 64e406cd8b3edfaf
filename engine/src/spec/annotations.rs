//! What annotations say, and the host's settings where there are none.

use super::Spec;
use crate::config::{periodic, Schedule};
use crate::policy;
use crate::start_options::{Binds, IoUring, StartMode, TcpPolicy, Volumes};
use crate::Error;

/// `off` leaves the container to runc, `warm` puts the init above it.
pub const MODE: &str = "fastmig.dev/mode";
/// `run`, `standby` or `restore=PATH`: how the application comes up when the container starts.
pub const START: &str = "fastmig.dev/start";
/// `allow` lets the application use io_uring, which CRIU cannot dump; `deny` does not.
pub const IO_URING: &str = "fastmig.dev/io-uring";
/// `close`, `keep` or `refuse`: what a checkpoint does with established TCP connections.
pub const TCP: &str = "fastmig.dev/tcp";
/// `all`, `none` or paths in the container: the volumes whose content travels with its files.
pub const VOLUMES: &str = "fastmig.dev/volumes";
/// `refuse` or `same`: what directories of the host, mounted for writing, are to a migration.
pub const BINDS: &str = "fastmig.dev/binds";

/// `off`, `default`, `paper` or the name of a policy of the host's: what becomes of an application that has ended.
pub const POLICY: &str = "fastmig.dev/policy";
/// `off` or a time: how often the daemon checkpoints the application.
pub const CHECKPOINT_EVERY: &str = "fastmig.dev/checkpoint-every";
/// How many of these checkpoints stay.
pub const CHECKPOINT_KEEP: &str = "fastmig.dev/checkpoint-keep";

impl Spec {
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.value["annotations"][key].as_str()
    }

    pub(super) fn start_mode(&self) -> Result<StartMode, Error> {
        match self.annotation(START) {
            None => Ok(self.defaults.start.into()),
            Some("run") => Ok(StartMode::Run),
            Some("standby") => Ok(StartMode::Standby),
            Some(value) => match value.strip_prefix("restore=") {
                Some(path) if path.starts_with('/') => Ok(StartMode::Restore(path.into())),
                _ => Err(bad_annotation(START, value, "it must be run, standby or restore=/ABSOLUTE/PATH")),
            },
        }
    }

    pub(super) fn tcp_policy(&self) -> Result<TcpPolicy, Error> {
        match self.annotation(TCP) {
            None => Ok(self.defaults.tcp),
            Some("close") => Ok(TcpPolicy::Close),
            Some("keep") => Ok(TcpPolicy::Keep),
            Some("refuse") => Ok(TcpPolicy::Refuse),
            Some(value) => Err(bad_annotation(TCP, value, "it must be close, keep or refuse")),
        }
    }

    pub(super) fn volumes(&self) -> Result<Volumes, Error> {
        let text = self.annotation(VOLUMES).unwrap_or("none");
        let expected = "it must be all, none or absolute paths in the container with commas between them";
        text.parse().map_err(|_| bad_annotation(VOLUMES, text, expected))
    }

    pub(super) fn binds(&self) -> Result<Binds, Error> {
        match self.annotation(BINDS) {
            None => Ok(self.defaults.binds),
            Some("refuse") => Ok(Binds::Refuse),
            Some("same") => Ok(Binds::Same),
            Some(value) => Err(bad_annotation(BINDS, value, "it must be refuse or same")),
        }
    }

    pub(super) fn policy(&self) -> Result<Option<String>, Error> {
        let name = self.annotation(POLICY).unwrap_or(&self.defaults.policy);
        if !policy::is_name(name) {
            return Err(bad_annotation(
                POLICY,
                name,
                "it must be off, default, paper or the name of a policy of this host",
            ));
        }
        Ok(Some(name.to_owned()).filter(|name| name != policy::OFF))
    }

    pub(super) fn schedule(&self) -> Result<Option<Schedule>, Error> {
        let keep = match self.annotation(CHECKPOINT_KEEP) {
            None => None,
            Some(text) => {
                Some(text.parse().ok().filter(|count| periodic::can_keep(*count)).ok_or_else(|| {
                    bad_annotation(CHECKPOINT_KEEP, text, "it must be a number from 1 to 1000")
                })?)
            }
        };
        let every = self.annotation(CHECKPOINT_EVERY);
        self.periodic.schedule(every, keep).map_err(|_| {
            let expected = "it must be off or a time from 1s to 366d, such as 5m";
            bad_annotation(CHECKPOINT_EVERY, every.unwrap_or_default(), expected)
        })
    }

    pub(super) fn io_uring(&self) -> Result<IoUring, Error> {
        match self.annotation(IO_URING) {
            None => Ok(self.defaults.io_uring),
            Some("deny") => Ok(IoUring::Deny),
            Some("allow") => Ok(IoUring::Allow),
            Some(value) => Err(bad_annotation(IO_URING, value, "it must be allow or deny")),
        }
    }
}

pub(super) fn bad_annotation(key: &str, value: &str, expected: &'static str) -> Error {
    Error::BadAnnotation { key: key.into(), value: value.into(), expected }
}
