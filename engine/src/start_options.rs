//! What a container's creator decides about its application; never a checkpoint.

use std::path::PathBuf;

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
