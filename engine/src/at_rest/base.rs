//! The checkpoint before: what it has is not written again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::content::{hashes_name, pages_name, Content, Hash};
use super::ledger::Slot;
use super::map::{self, Map, Places, Run};
use crate::image::{self, verify_file, FileEntry, ImageError, Manifest};

/// A checkpoint whose content files are files of the one in the making as well.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    /// Opened where the new checkpoint is made: the old one may go meanwhile.
    pub(super) contents: Vec<Content>,
    /// What its manifest says of each of these files.
    pub(super) entries: BTreeMap<String, FileEntry>,
    places: Places,
}

impl Base {
    /// Links the content of the checkpoint at `path` into `directory`; nothing when there is none to be built upon: it is gone,
    /// of another kind, somebody else's, damaged, or on another file system.
    pub(super) fn link(path: &Path, directory: &Path) -> Option<Self> {
        let mut linked = Vec::new();
        match try_link(path, directory, &mut linked) {
            Ok(base) => Some(base),
            Err(e) => {
                tracing::debug!(?path, error = %e, "no checkpoint is built upon");
                linked.iter().for_each(|name| remove(directory, name));
                None
            }
        }
    }

    /// Which of so many pages from `page` on it has, where they lie, and their hashes.
    pub(super) fn known(
        &self,
        process: i32,
        page: u64,
        count: u64,
    ) -> impl Iterator<Item = (u64, Slot, Hash)> + '_ {
        map::among(&self.places, process, page, count).flat_map(|run| self.hashes_of(run))
    }

    /// What cannot be read is not known.
    fn hashes_of(&self, run: Run) -> impl Iterator<Item = (u64, Slot, Hash)> {
        let content = self.contents.get(usize::from(run.file));
        let count = usize::try_from(run.count).unwrap_or(0);
        let hashes = content.and_then(|content| content.hashes(run.index, count).ok()).unwrap_or_default();
        let slots = (run.index..).map(move |index| Slot { file: run.file + 1, index });
        (run.page..).zip(slots).zip(hashes).map(|((page, slot), hash)| (page, slot, hash))
    }
}

fn try_link(path: &Path, directory: &Path, linked: &mut Vec<String>) -> Result<Base, ImageError> {
    let damaged = |file: &str, problem| ImageError::Damaged { path: path.into(), file: file.into(), problem };
    let manifest = Manifest::read(path)?;
    if manifest.format != image::FORMAT_IN_ROUNDS {
        return Err(damaged(image::MANIFEST, "has no memory of its own"));
    }
    let all: BTreeMap<&str, &FileEntry> =
        manifest.files.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let vouched = |name: &str| {
        let entry = *all.get(name).ok_or_else(|| damaged(name, "is not in its manifest"))?;
        verify_file(path, entry).map(|()| entry.clone())
    };
    vouched(map::NAME)?;
    let (map, _) = Map::open(path)?;
    let mut entries = BTreeMap::new();
    let mut contents = Vec::new();
    for number in map.files {
        for name in [pages_name(number), hashes_name(number)] {
            let entry = vouched(&name)?;
            let (from, to) = (path.join(&name), directory.join(&name));
            std::fs::hard_link(&from, &to).map_err(|source| ImageError::Io {
                action: "link",
                path: from,
                source,
            })?;
            linked.push(name.clone());
            verify_file(directory, &entry)?;
            entries.insert(name, entry);
        }
        let opened = Content::open(directory, number);
        let (content, _) = opened.map_err(|_| damaged(&pages_name(number), "is not what was linked"))?;
        contents.push(content);
    }
    Ok(Base { path: path.into(), contents, entries, places: map.places })
}

/// Takes a file out of a checkpoint in the making.
pub(super) fn remove(directory: &Path, name: &str) {
    let path = directory.join(name);
    if let Err(e) = std::fs::remove_file(&path) {
        tracing::warn!(?path, error = %e, "a file that is not needed stays");
    }
}
