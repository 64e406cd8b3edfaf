//! The two ends of a migration: the protocol's seam, filled by the engine.

use std::sync::Arc;

use fastmig_engine::checkpoint::Tcp;
use fastmig_engine::{Config, Key};
use fastmig_migrate::ends::{EndError, Leaving, Waiting};

/// How an application is to leave.
#[derive(Debug, Clone, Default)]
pub struct LeavingOptions {
    /// What becomes of established TCP connections; the container's annotation when not given.
    pub tcp: Option<Tcp>,
    /// What was written in the root file system travels along.
    pub files: bool,
}

/// The application of container `key`, which is to leave.
///
/// # Errors
/// When there is no such container, or its application does not run.
pub fn leaving(
    _config: Arc<Config>,
    _key: &Key,
    _options: LeavingOptions,
) -> Result<Box<dyn Leaving>, EndError> {
    Err("not built yet".into())
}

/// The container `key`, in standby, which is to take an application in.
///
/// # Errors
/// When there is no such container, or it is not in standby.
pub fn waiting(_config: Arc<Config>, _key: &Key) -> Result<Box<dyn Waiting>, EndError> {
    Err("not built yet".into())
}
