//! What is slow to make is made once: root file systems, images, the CRIU bundle.
//!
//! An entry is keyed by the hash of its recipe, built under a temporary name and renamed when complete, so that what exists is
//! whole. A lock per entry keeps two builders apart; entries of older recipes are removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::mounts::remove_tree;
use super::progress::long_step;
use super::state;

/// Hexadecimal digits of the recipe's hash in the name of an entry.
const HASH_DIGITS: usize = 12;

/// The directory that holds the entries.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `$FASTMIG_CACHE`, else in `/var/cache/fastmig`.
    pub fn open() -> Result<Self> {
        let root = std::env::var_os("FASTMIG_CACHE")
            .map_or_else(|| PathBuf::from("/var/cache/fastmig"), PathBuf::from);
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry `name` made by `recipe`; `build` makes it at the path that it is given when there is none.
    pub fn get(
        &self,
        kind: &str,
        name: &str,
        recipe: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let dir = self.root.join(kind);
        let entry = dir.join(format!("{name}-{}", short_hash(recipe)));
        if entry.exists() {
            return Ok(entry);
        }
        fs::create_dir_all(&dir)?;
        let _lock = self.lock(&format!("{kind}-{name}"))?;
        if entry.exists() {
            return Ok(entry);
        }
        let temporary = dir.join(format!(".{name}.part"));
        remove_tree(&temporary)?;
        long_step(&format!("building {kind}/{name}"), || build(&temporary))
            .with_context(|| format!("cannot build {kind}/{name}"))?;
        fs::rename(&temporary, &entry).with_context(|| format!("cannot make {}", entry.display()))?;
        remove_older(&dir, name, &entry)?;
        Ok(entry)
    }

    fn lock(&self, name: &str) -> Result<Flock<File>> {
        let dir = self.root.join("locks");
        fs::create_dir_all(&dir)?;
        lock_file(&dir.join(name))
    }
}

/// Takes the lock `path`, and waits for it.
pub fn lock_file(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}

fn remove_older(dir: &Path, name: &str, current: &Path) -> Result<()> {
    let in_use = state::roots_in_use();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path != current && is_version_of(&path, name) && !in_use.contains(&path) {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

fn is_version_of(path: &Path, name: &str) -> bool {
    let hash = path
        .file_name()
        .and_then(|file| file.to_str())
        .and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
    hash.is_some_and(|hash| hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn short_hash(recipe: &str) -> String {
    let mut hash = hex::encode(Sha256::digest(recipe));
    hash.truncate(HASH_DIGITS);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once_and_replaces_its_older_version() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { root: dir.path().to_owned() };
        let build = |text: &'static str| move |path: &Path| Ok(fs::write(path, text)?);
        let first = cache.get("k", "n", "one", build("1")).unwrap();
        assert_eq!(cache.get("k", "n", "one", |_| panic!("built twice")).unwrap(), first);
        let other = cache.get("k", "n-x", "one", build("x")).unwrap();
        let second = cache.get("k", "n", "two", build("2")).unwrap();
        assert!(!first.exists() && other.exists());
        assert_eq!(fs::read_to_string(second).unwrap(), "2");
    }

    #[test]
    fn a_failed_build_leaves_no_entry() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { root: dir.path().to_owned() };
        assert!(cache.get("k", "n", "r", |_| anyhow::bail!("no")).is_err());
        assert!(cache.get("k", "n", "r", |path| Ok(fs::write(path, "")?)).is_ok());
    }
}
