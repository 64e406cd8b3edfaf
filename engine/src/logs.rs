//! CRIU's logs: one for each call, kept when the call fails.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fastmig_criu::{Detail, Log};

use crate::state::Directory;
use crate::{Config, Error, Key};

/// The log of the next CRIU call of this container: with its state, which is on a tmpfs, until the call is over (should the caller be
/// killed meanwhile, as long as the container is there).
pub(crate) fn new_log(config: &Config, key: &Key, operation: &str) -> Result<Log, Error> {
    let directory = config.log_dir.join(key.namespace());
    make_private(&directory)?;
    let stamp = crate::clock::now().replace(':', "");
    let detail = if has_failed(&directory, key, operation) { Detail::Everything } else { Detail::Problems };
    let written = Directory::of(config, key).file(&format!("criu-{operation}-{stamp}.log"));
    Ok(Log::new(detail, written, directory.join(format!("{}-{operation}-{stamp}.log", key.id()))))
}

/// Whether the log of such a call of this container's is kept: who tries again wants to know more.
fn has_failed(logs: &Path, key: &Key, operation: &str) -> bool {
    let before = format!("{}-{operation}-", key.id());
    let names = std::fs::read_dir(logs).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with(&before))
}

/// Puts a copy where the caller looks for it. Ours is kept whatever happens to that.
pub(crate) fn copy(log: &Path, directory: Option<&Path>, name: &str) {
    let Some(directory) = directory else { return };
    if let Err(e) = std::fs::copy(log, directory.join(name)) {
        tracing::debug!(?log, ?directory, error = %e, "the caller gets no copy of a log");
    }
}

/// Where CRIU keeps what it has learnt about the kernel; on a tmpfs it learns that once.
pub(crate) fn work_directory(config: &Config) -> Result<PathBuf, Error> {
    let directory = config.state_root.join(".criu");
    make_private(&directory)?;
    if crate::tree::apparmor::is_enabled() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tries_again_after_a_failure_hears_everything() {
        let logs = tempfile::tempdir().unwrap();
        let key = Key::new("default", "web").unwrap();
        assert!(!has_failed(logs.path(), &key, "restore"));
        std::fs::write(logs.path().join("web-restore-2026-01-01T000000Z.log"), "").unwrap();
        assert!(has_failed(logs.path(), &key, "restore"));
        assert!(!has_failed(logs.path(), &key, "dump"));
        let another = Key::new("default", "web-2").unwrap();
        assert!(!has_failed(logs.path(), &another, "restore"));
    }
}
