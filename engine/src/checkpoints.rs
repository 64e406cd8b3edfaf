//! The checkpoints of a container, where its policy or its start options name them instead of giving a path: the last one
//! that was taken of it, wherever it stands, and those that the daemon keeps by name.

use std::path::{Path, PathBuf};

use fastmig_policy::Wanted;
use serde::Deserialize;

use crate::image::{self, MANIFEST};
use crate::{Container, Error};

/// Beside the manifest of those that the daemon keeps.
const ORIGIN: &str = "origin.json";

/// Where the daemon notes whose a checkpoint is.
#[derive(Debug, Deserialize)]
struct Origin {
    container: String,
}

/// Where the wanted checkpoint stands.
///
/// # Errors
/// When there is none.
pub(crate) fn find(container: &Container, wanted: &Wanted) -> Result<PathBuf, Error> {
    let found = match wanted {
        Wanted::Latest => latest_of(container),
        Wanted::Named(name) => named(container, name),
    };
    found.ok_or_else(|| Error::NoCheckpoint { id: container.key().id().into(), wanted: wanted.to_string() })
}

fn named(container: &Container, name: &str) -> Option<PathBuf> {
    let path = container.config.daemon.checkpoint_dir.join(name);
    // A name never leads out of the directory.
    let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
    (plain && image::is_ours(&path)).then_some(path)
}

/// The newest that is complete, by its manifest's time on this host.
pub(crate) fn latest_of(container: &Container) -> Option<PathBuf> {
    let recorded = container.directory.load(container.key()).ok().and_then(|record| record.last_checkpoint);
    let kept = kept_of(&container.config.daemon.checkpoint_dir, container.key().id());
    let all = recorded.into_iter().chain(kept);
    all.filter_map(|path| Some((modified(&path)?, path))).max().map(|(_, path)| path)
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path.join(MANIFEST)).ok()?.modified().ok()
}

/// Those that the daemon has noted to be of container `id`.
fn kept_of(directory: &Path, id: &str) -> Vec<PathBuf> {
    let is_of = |path: &PathBuf| {
        let text = std::fs::read(path.join(ORIGIN)).unwrap_or_default();
        serde_json::from_slice::<Origin>(&text).is_ok_and(|origin| origin.container == id)
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_ones_of_the_container_count() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, id: &str| {
            let path = root.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(ORIGIN), format!("{{\"container\":\"{id}\"}}")).unwrap();
            path
        };
        let ours = make("a", "web");
        make("b", "db");
        assert_eq!(kept_of(root.path(), "web"), std::slice::from_ref(&ours));
        assert_eq!(modified(&ours), None);
        std::fs::write(ours.join(MANIFEST), "{}").unwrap();
        assert!(modified(&ours).is_some());
    }
}
