//! A checkpoint in the making.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{renameat2, RenameFlags, AT_FDCWD};

use super::error::failed;
use super::{digest, is_ours, open_nofollow, FileEntry, ImageError, Manifest, MANIFEST};

/// Between the name of the place and the pid of its maker.
const PARTIAL: &str = ".partial-";

/// A checkpoint in the making. Dropped before [`Draft::publish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Draft {
    place: PathBuf,
    directory: PathBuf,
    published: bool,
}

impl Draft {
    /// Begins a checkpoint that is to stand at `place`, which must not exist or be an empty directory, or hold the
    /// checkpoint that this one `replaces`.
    pub(crate) fn begin(place: &Path, replaces: bool) -> Result<Self, ImageError> {
        match std::fs::read_dir(place).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) if replaces && is_ours(place) => {}
            Ok(_) => return Err(ImageError::Occupied { path: place.into() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("read", place)(e)),
        }
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(PARTIAL);
        clear(&place.with_file_name(&name));
        name.push(std::process::id().to_string());
        let directory = place.with_file_name(name);
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed("make", &directory))?;
        Ok(Self { place: place.into(), directory, published: false })
    }

    /// Where CRIU writes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds the manifest, with `files` filled in, and renames the checkpoint into place. How many bytes its files have.
    pub(crate) fn publish(self, manifest: Manifest) -> Result<u64, ImageError> {
        self.publish_knowing(manifest, &BTreeMap::new())
    }

    /// The same, where files are linked of which another manifest speaks already.
    pub(crate) fn publish_knowing(
        mut self,
        mut manifest: Manifest,
        known: &BTreeMap<String, FileEntry>,
    ) -> Result<u64, ImageError> {
        manifest.files = describe_files(&self.directory, known)?;
        let size = manifest.files.iter().map(|file| file.size).sum();
        let path = self.directory.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| ImageError::BadManifest { path: self.directory.clone(), source })?;
        write_private(&path, &text).map_err(failed("write", &path))?;
        self.put_in_place().map_err(failed("put in place", &self.place))?;
        self.published = true;
        Ok(size)
    }

    /// In one step, also where another checkpoint stands; that one goes then.
    fn put_in_place(&self) -> io::Result<()> {
        if !is_ours(&self.place) {
            return std::fs::rename(&self.directory, &self.place);
        }
        let exchange = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &self.directory, AT_FDCWD, &self.place, exchange)?;
        std::fs::remove_dir_all(&self.directory)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            if let Err(e) = std::fs::remove_dir_all(&self.directory) {
                tracing::warn!(path = ?self.directory, error = %e, "an unfinished checkpoint could not be removed");
            }
        }
    }
}

/// Removes drafts of one place, whose names begin with `beginning`, that processes have left which are no more.
fn clear(beginning: &Path) {
    let (Some(parent), Some(beginning)) = (beginning.parent(), beginning.file_name()) else { return };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let pid = entry.file_name().as_bytes().strip_prefix(beginning.as_bytes()).map(<[u8]>::to_vec);
        let pid: Option<u32> = pid.and_then(|pid| String::from_utf8(pid).ok()?.parse().ok());
        let is_dead = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
        if pid.is_some_and(is_dead) {
            if let Err(e) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = ?entry.path(), error = %e, "an unfinished checkpoint stays");
            }
        }
    }
}

fn describe_files(
    directory: &Path,
    known: &BTreeMap<String, FileEntry>,
) -> Result<Vec<FileEntry>, ImageError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed("read", directory))? {
        let entry = entry.map_err(failed("read", directory))?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = open_nofollow(&path, 0).map_err(failed("open", &path))?;
        // CRIU lets everybody read what it writes, and a copy of a checkpoint may lie in a directory that does, too.
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("make private", &path))?;
        let size = file.metadata().map_err(failed("read", &path))?.len();
        if let Some(entry) = known.get(&name).filter(|entry| entry.size == size) {
            files.push(entry.clone());
            continue;
        }
        files.push(FileEntry { name, size, blake3: digest(file).map_err(failed("read", &path))? });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
