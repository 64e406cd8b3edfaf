//! CRIU's logs: one for each call, kept when the call fails.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::{Config, Error, Key};

/// Where the log of the next CRIU call of this container goes.
pub(crate) fn new_log(config: &Config, key: &Key, operation: &str) -> Result<PathBuf, Error> {
    let directory = config.log_dir.join(key.namespace());
    make_private(&directory)?;
    let stamp = crate::clock::now().replace(':', "");
    Ok(directory.join(format!("{}-{operation}-{stamp}.log", key.id())))
}

/// Puts a copy where the caller looks for it. Ours is kept whatever happens to that.
pub(crate) fn copy(log: &Path, directory: Option<&Path>, name: &str) {
    let Some(directory) = directory else { return };
    if let Err(e) = std::fs::copy(log, directory.join(name)) {
        tracing::debug!(?log, ?directory, error = %e, "the caller gets no copy of a log");
    }
}

/// Removes the log of a call that went well.
pub(crate) fn forget(log: &Path) {
    if let Err(e) = std::fs::remove_file(log) {
        tracing::debug!(?log, error = %e, "a log could not be removed");
    }
}

/// Where CRIU keeps what it has learnt about the kernel; on a tmpfs it learns that once.
pub(crate) fn work_directory(config: &Config) -> Result<PathBuf, Error> {
    let directory = config.state_root.join(".criu");
    make_private(&directory)?;
    if crate::apparmor::is_enabled() {
        // CRIU cannot see the host's own from a container: there it would restore no label.
        make_private(&directory.join("apparmor"))?;
    }
    Ok(directory)
}

fn make_private(directory: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| Error::io("make", directory, e))
}
