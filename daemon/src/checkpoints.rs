//! The checkpoints that the daemon keeps: directories by name in one place, and no way out of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fastmig_api::checkpoint::Checkpoint;
use fastmig_api::request::checkpoint_name;
use fastmig_api::{Code, ErrorInfo};
use fastmig_engine::image;
use serde::{Deserialize, Serialize};

use crate::failure::internal;

/// What the manifest does not say, beside it.
pub(crate) const ORIGIN: &str = "origin.json";

/// Where a checkpoint came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The container.
    pub container: String,
    /// How many processes it holds.
    pub processes: u64,
    /// Whether nobody asked for it: the daemon keeps so many of these and no more.
    #[serde(default)]
    pub periodic: bool,
}

/// The place.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    directory: PathBuf,
}

impl Checkpoints {
    /// Those in `directory`, which is made when the first one is.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where one of this name stands, or would.
    ///
    /// # Errors
    /// [`Code::BadRequest`] when it is no name.
    pub fn path(&self, name: &str) -> Result<PathBuf, ErrorInfo> {
        checkpoint_name("name", name)?;
        Ok(self.directory.join(name))
    }

    /// Where the one of this name stands.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none.
    pub fn existing(&self, name: &str) -> Result<PathBuf, ErrorInfo> {
        let path = self.path(name)?;
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if is_directory && image::is_ours(&path) {
            return Ok(path);
        }
        Err(ErrorInfo::new(Code::NotFound, format!("there is no checkpoint {name:?}"))
            .with_remedy("GET /v1/checkpoints lists them"))
    }

    /// Makes the place for one more.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self) -> Result<(), ErrorInfo> {
        crate::files::make_private_dir(&self.directory).map_err(|e| internal(&e))
    }

    /// Notes where the one at `path` came from.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, path: &Path, origin: &Origin) -> io::Result<()> {
        crate::files::replace_json(&path.join(ORIGIN), origin)
    }

    /// All of them, the oldest first. A damaged one is not among them.
    ///
    /// # Errors
    /// When the place cannot be read.
    pub fn list(&self) -> Result<Vec<Checkpoint>, ErrorInfo> {
        let entries = match fs::read_dir(&self.directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| internal(&e))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut all: Vec<Checkpoint> = names.filter_map(|name| self.describe(&name).ok()).collect();
        all.sort_by(|a, b| (&a.made_at, &a.name).cmp(&(&b.made_at, &b.name)));
        Ok(all)
    }

    /// One of them.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn describe(&self, name: &str) -> Result<Checkpoint, ErrorInfo> {
        let path = self.existing(name)?;
        let manifest = image::manifest(&path).map_err(|e| ErrorInfo::of(Code::Refused, &e))?;
        // One that was put here by hand has none.
        let origin: Option<Origin> = crate::files::read_json(&path.join(ORIGIN)).ok().flatten();
        Ok(Checkpoint {
            name: name.to_owned(),
            container: origin.as_ref().map(|origin| origin.container.clone()).unwrap_or_default(),
            made_at: manifest.created,
            bytes: manifest.files.iter().map(|file| file.size).sum(),
            processes: origin.map(|origin| origin.processes),
        })
    }

    /// Takes one away. It has lost its name before its first file goes: half a checkpoint is none.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed.
    pub fn delete(&self, name: &str) -> Result<(), ErrorInfo> {
        let path = self.existing(name)?;
        let chance: [u8; 4] = crate::files::random().map_err(|e| internal(&e))?;
        let gone = self.directory.join(format!(".deleted-{}", hex::encode(chance)));
        fs::rename(&path, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(|e| internal(&e))
    }

    /// Clears away what a killed daemon left: deletions half done, and checkpoints that nobody makes any more.
    pub fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of_the_dead = name.rsplit_once(".partial-").is_some_and(|(_, pid)| !is_alive(pid));
            if name.starts_with(".deleted-") || of_the_dead {
                if let Err(e) = fs::remove_dir_all(entry.path()) {
                    tracing::warn!(path = ?entry.path(), error = %e, "a leftover stays");
                }
            }
        }
    }
}

fn is_alive(pid: &str) -> bool {
    // What is no number is not ours to remove.
    pid.parse::<u32>()
        .map_or(true, |pid| pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_place() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("place");
        let outside = root.path().join("outside");
        for directory in [&place, &outside] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(outside.join(image::MANIFEST), "{}").unwrap();
        std::os::unix::fs::symlink(&outside, place.join("link")).unwrap();
        let checkpoints = Checkpoints::at(&place);
        for name in ["../outside", "..", ".", "", "/etc", "link/../../outside"] {
            assert_eq!(checkpoints.delete(name).unwrap_err().code, Code::BadRequest, "{name}");
        }
        assert_eq!(checkpoints.delete("link").unwrap_err().code, Code::NotFound);
        assert!(outside.join(image::MANIFEST).exists());
        assert!(checkpoints.list().unwrap().is_empty());
    }

    #[test]
    fn one_that_is_there_is_taken_away_and_leftovers_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::at(root.path());
        for name in ["one", ".deleted-1", "two.partial-4194305", "other.partial-x"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("one").join(image::MANIFEST), "{}").unwrap();
        checkpoints.sweep();
        checkpoints.delete("one").unwrap();
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["other.partial-x"]);
    }
}
