//! CRIU's log: no longer than it need be, written where that costs little, kept elsewhere when something failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// How much CRIU says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Warnings and errors, from which failures are explained.
    Problems,
    /// Each step, some hundreds of lines for each process: with sixteen of them some 20 ms of a freeze.
    Everything,
}

/// The log of one call.
///
/// CRIU makes a `write(2)` of each line, and all processes of a restore write to one file: where that is on a disk they wait for
/// each other. So it is written on a tmpfs, and goes where logs are kept when the last who holds this drops it, unless it is
/// forgotten before.
#[derive(Debug, Clone)]
pub struct Log(Arc<Files>);

#[derive(Debug)]
struct Files {
    detail: Detail,
    written: PathBuf,
    kept: PathBuf,
    forgotten: AtomicBool,
}

impl Log {
    /// Is written to `written`, and kept as `kept`. Neither is made here.
    #[must_use]
    pub fn new(detail: Detail, written: PathBuf, kept: PathBuf) -> Self {
        Self(Arc::new(Files { detail, written, kept, forgotten: AtomicBool::new(false) }))
    }

    pub(crate) fn detail(&self) -> Detail {
        self.0.detail
    }

    /// Where it is as long as somebody holds this.
    #[must_use]
    pub fn written(&self) -> &Path {
        &self.0.written
    }

    /// Where it is afterwards.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.0.kept.clone()
    }

    /// The call went well: nobody will look for it.
    pub fn forget(&self) {
        self.0.forgotten.store(true, Ordering::Relaxed);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let Self { written, kept, forgotten, .. } = self;
        if !forgotten.load(Ordering::Relaxed) {
            // Kept where it was written, or never begun.
            if written == kept || !written.exists() {
                return;
            }
            if let Err(error) = fs::copy(&*written, &*kept) {
                tracing::warn!(?written, ?kept, %error, "CRIU's log stays where it was written");
                return;
            }
        }
        if let Err(error) = fs::remove_file(&*written) {
            tracing::debug!(?written, %error, "a log could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(directory: &Path) -> Log {
        let log = Log::new(Detail::Problems, directory.join("written"), directory.join("kept"));
        fs::write(log.written(), "Error: no\n").unwrap();
        log
    }

    #[test]
    fn goes_where_it_is_kept_when_nobody_holds_it_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        let (also, kept) = (log.clone(), log.kept());
        drop(log);
        assert!(also.written().exists() && !kept.exists());
        drop(also);
        assert_eq!(fs::read_to_string(kept).unwrap(), "Error: no\n");
        assert!(!directory.path().join("written").exists());
    }

    #[test]
    fn is_nowhere_once_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        log(directory.path()).forget();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn stays_where_it_was_written_when_it_cannot_be_kept() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        fs::create_dir(log.kept()).unwrap();
        let written = log.written().to_owned();
        drop(log);
        assert!(written.exists());
    }
}
