//! Where a checkpoint lies on its way to a store or from it. Only root looks there; what a killed process has left goes
//! with the next one's.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fastmig_engine::Error;

const PREFIX: &str = "work-";

/// The checkpoint's name in its directory.
const CHECKPOINT: &str = "checkpoint";

/// A directory of this process, removed with the guard.
#[derive(Debug)]
pub(super) struct Staging {
    directory: PathBuf,
}

impl Staging {
    /// A directory below `root`.
    pub(super) fn begin(root: &Path) -> Result<Self, Error> {
        let fail = |action| move |source: io::Error| Error::Io { action, path: root.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(fail("make"))?;
        clear(root).map_err(fail("clear"))?;
        let directory = root.join(format!("{PREFIX}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&directory).map_err(fail("make a directory in"))?;
        Ok(Self { directory })
    }

    /// Where the checkpoint stands; nothing is there yet.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(CHECKPOINT)
    }

    /// Leaves the checkpoint where nobody clears it away, and answers its path.
    pub(super) fn keep(self, container: &str) -> PathBuf {
        let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let container: String =
            container.chars().map(|c| if is_good(c) { c } else { '-' }).take(64).collect();
        let name = format!("kept-{container}-{}", fastmig_engine::now().replace(':', ""));
        let kept = self.directory.with_file_name(name);
        let moved = std::fs::rename(&self.directory, &kept).is_ok();
        let place = if moved { kept } else { self.directory.clone() };
        std::mem::forget(self);
        place.join(CHECKPOINT)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(path = ?self.directory, error = %e, "a checkpoint on its way could not be removed");
        }
    }
}

/// Removes what processes have left that are no more, and what one of our own number has.
fn clear(root: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(root).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_goes_with_its_guard_and_takes_dead_ones_along() {
        let root = tempfile::tempdir().unwrap();
        for name in ["work-4000000000", "work-1", "kept-web-1", "other"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let staging = Staging::begin(root.path()).unwrap();
        std::fs::create_dir(staging.path()).unwrap();
        drop(staging);
        let mut left = names(root.path());
        left.sort();
        assert_eq!(left, ["kept-web-1", "other", "work-1"]);
    }

    #[test]
    fn what_is_kept_stays() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::begin(root.path()).unwrap();
        std::fs::create_dir(staging.path()).unwrap();
        let kept = staging.keep("shop/../web");
        assert!(kept.is_dir() && kept.starts_with(root.path()), "{kept:?}");
        drop(Staging::begin(root.path()).unwrap());
        assert!(kept.is_dir());
    }
}
