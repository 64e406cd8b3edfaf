//! A layer of an image: a tree as a tar file, entries in the order of their names, and its digest.
//!
//! The tree may be the upper directory of an overlay; its marks for what was deleted become those of the image format.
//! Extended attributes are left out: no package that we use has file capabilities.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::framework::sys;

/// Directories that are in a layer, but empty: made by the build, not by a package.
const EMPTY: &[&str] =
    &["dev", "proc", "sys", "tmp", "var/tmp", "var/cache/apt", "var/lib/apt/lists", "var/log/apt"];

/// Files of the machine that made the layer.
const ABSENT: &[&str] =
    &["etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/log/dpkg.log", "var/log/bootstrap.log"];

/// A layer in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layer {
    #[serde(skip)]
    pub(crate) path: PathBuf,
    /// `sha256:` and the hash of the file.
    pub digest: String,
    /// The file's length.
    pub size: u64,
}

impl Layer {
    /// Writes the tree `source` as a layer to `target`.
    pub fn write(source: &Path, target: &Path) -> Result<Self> {
        let file = File::create(target).with_context(|| format!("cannot make {}", target.display()))?;
        let mut packer =
            Packer { tar: Builder::new(Hashing::new(BufWriter::new(file))), linked: HashMap::new() };
        packer.tar.follow_symlinks(false);
        packer.add_children(source, Path::new(""))?;
        let mut hashing = packer.tar.into_inner()?;
        hashing.inner.flush()?;
        let digest = format!("sha256:{}", hex::encode(hashing.hash.finalize()));
        Ok(Self { path: target.to_owned(), digest, size: hashing.written })
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec(self)?).with_context(|| format!("cannot write {}", file.display()))
    }

    pub(crate) fn load(file: &Path, path: &Path) -> Result<Self> {
        let layer: Self = serde_json::from_slice(&fs::read(file)?)?;
        Ok(Self { path: path.to_owned(), ..layer })
    }
}

struct Packer<W: Write> {
    tar: Builder<W>,
    /// The first name of each file that has several.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn add_children(&mut self, dir: &Path, name: &Path) -> Result<()> {
        let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            if !ABSENT.iter().any(|absent| name == Path::new(absent)) {
                self.add(&path, &name).with_context(|| format!("cannot pack {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        if kind.is_dir() {
            self.add_dir(&mut header, path, name)
        } else if kind.is_symlink() {
            Ok(self.tar.append_link(&mut header, name, fs::read_link(path)?)?)
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            self.add_mark(&whiteout(name))
        } else if kind.is_file() {
            self.add_file(&mut header, &metadata, path, name)
        } else {
            // Devices, pipes and sockets are made by whoever runs the image.
            Ok(())
        }
    }

    fn add_dir(&mut self, header: &mut Header, path: &Path, name: &Path) -> Result<()> {
        self.tar.append_data(header, name.join(""), io::empty())?;
        if sys::is_opaque_directory(path).unwrap_or(false) {
            self.add_mark(&name.join(".wh..wh..opq"))?;
        }
        if EMPTY.iter().any(|empty| name == Path::new(empty)) {
            return Ok(());
        }
        self.add_children(path, name)
    }

    fn add_file(&mut self, header: &mut Header, metadata: &Metadata, path: &Path, name: &Path) -> Result<()> {
        if metadata.nlink() > 1 {
            let id = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&id) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return Ok(self.tar.append_link(header, name, first)?);
            }
            self.linked.insert(id, name.to_owned());
        }
        Ok(self.tar.append_data(header, name, File::open(path)?)?)
    }

    fn add_mark(&mut self, name: &Path) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        Ok(self.tar.append_data(&mut header, name, io::empty())?)
    }
}

/// The name that says in a layer that `name` of a lower layer is gone.
fn whiteout(name: &Path) -> PathBuf {
    let file = name.file_name().unwrap_or_default().to_string_lossy();
    name.with_file_name(format!(".wh.{file}"))
}

/// Passes on and hashes what is written.
pub(crate) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), written: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.hash.update(&data[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(layer: &Layer) -> Vec<(String, EntryType)> {
        let mut archive = tar::Archive::new(File::open(&layer.path).unwrap());
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|e| (e.path().unwrap().display().to_string(), e.header().entry_type())).collect()
    }

    #[test]
    fn a_tree_is_packed_in_order_with_links_and_without_build_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("tmp")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        for file in ["tmp/junk", "etc/hostname", "etc/b", "etc/a"] {
            fs::write(tree.join(file), file).unwrap();
        }
        fs::hard_link(tree.join("etc/a"), tree.join("etc/c")).unwrap();
        std::os::unix::fs::symlink("a", tree.join("etc/d")).unwrap();
        let layer = Layer::write(&tree, &dir.path().join("1.tar")).unwrap();
        let expected = [
            ("etc/", EntryType::Directory),
            ("etc/a", EntryType::Regular),
            ("etc/b", EntryType::Regular),
            ("etc/c", EntryType::Link),
            ("etc/d", EntryType::Symlink),
            ("tmp/", EntryType::Directory),
        ];
        assert_eq!(entries(&layer), expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert_eq!(layer.size, fs::metadata(&layer.path).unwrap().len());
        assert_eq!(Layer::write(&tree, &dir.path().join("2.tar")).unwrap().digest, layer.digest);
    }

    #[test]
    fn a_deleted_file_has_a_mark_beside_it() {
        assert_eq!(whiteout(Path::new("etc/x")), Path::new("etc/.wh.x"));
    }
}
