//! A checkpoint in the making.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{renameat2, RenameFlags, AT_FDCWD};

use super::error::failed;
use super::{digest, is_ours, open_nofollow, FileEntry, ImageError, Manifest, MANIFEST};

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
        name.push(format!(".partial-{}", std::process::id()));
        let directory = place.with_file_name(name);
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed("make", &directory))?;
        Ok(Self { place: place.into(), directory, published: false })
    }

    /// Where CRIU writes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds the manifest, with `files` filled in, and renames the checkpoint into place.
    pub(crate) fn publish(mut self, mut manifest: Manifest) -> Result<u64, ImageError> {
        manifest.files = describe_files(&self.directory)?;
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

fn describe_files(directory: &Path) -> Result<Vec<FileEntry>, ImageError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed("read", directory))? {
        let entry = entry.map_err(failed("read", directory))?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = open_nofollow(&path, 0).map_err(failed("open", &path))?;
        // CRIU lets everybody read what it writes, and a copy of a checkpoint may lie in a directory that does, too.
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("make private", &path))?;
        let size = file.metadata().map_err(failed("read", &path))?.len();
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
