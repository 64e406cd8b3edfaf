//! What a container's creator decides about its application; never a checkpoint.

use std::path::PathBuf;

pub use fastmig_rootfs::Volumes;
use serde::{Deserialize, Serialize};

/// How the application comes up when the container starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartMode {
    /// From scratch, as on runc.
    Run,
    /// Not yet.
    Standby,
    /// From this checkpoint.
    Restore(PathBuf),
}

/// Whether FastMig's init goes above the container's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It does.
    #[default]
    Warm,
    /// The container is left to the OCI runtime as it is.
    Off,
}

/// How applications come up of which nobody says it; a checkpoint belongs to one container, so it is no choice here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DefaultStart {
    /// As [`StartMode::Run`].
    #[default]
    Run,
    /// As [`StartMode::Standby`].
    Standby,
}

impl From<DefaultStart> for StartMode {
    fn from(start: DefaultStart) -> Self {
        match start {
            DefaultStart::Run => Self::Run,
            DefaultStart::Standby => Self::Standby,
        }
    }
}

/// Whether the application may use `io_uring`, which CRIU cannot dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum IoUring {
    /// It is answered ENOSYS where no profile decides.
    #[default]
    Deny,
    /// It may.
    Allow,
}

/// What becomes of directories of the host that the application may write to and that do not travel, when it moves to another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Binds {
    /// It does not move.
    #[default]
    Refuse,
    /// They are the same on both hosts: storage that both see, or of no matter.
    Same,
}

/// What becomes of established TCP connections; the container's word, never the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TcpPolicy {
    /// Closed in the restored application.
    #[default]
    Close,
    /// Kept; the address must move along.
    Keep,
    /// A checkpoint with one fails.
    Refuse,
}

impl From<TcpPolicy> for fastmig_criu::Tcp {
    fn from(policy: TcpPolicy) -> Self {
        match policy {
            TcpPolicy::Close => Self::Close,
            TcpPolicy::Keep => Self::Keep,
            TcpPolicy::Refuse => Self::Refuse,
        }
    }
}
