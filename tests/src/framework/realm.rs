//! A realm is a set of hosts with one network, apart from all other realms.
//!
//! Hosts made by hand (`cargo xtask hosts`) and hosts of a test run live in different realms, so that neither disturbs the
//! other. Same names and addresses in two realms do not meet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use nix::fcntl::Flock;

use super::cache::{lock_file, Cache};
use super::mounts::remove_tree;
use super::network;
use super::state::HostState;

/// Where the state of all running hosts is.
pub const STATE_ROOT: &str = "/run/fastmig-hosts";

/// The realm of the hosts made by hand.
pub const BY_HAND: &str = "cli";

/// The realm of the hosts of a test run.
pub const OF_TESTS: &str = "test";

/// The name of a realm; `FASTMIG_REALM` replaces both standard ones, for people who share a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    name: String,
}

impl Realm {
    /// The realm `default`, or the one that the environment asks for.
    pub fn or_from_environment(default: &str) -> Result<Self> {
        Self::named(&std::env::var("FASTMIG_REALM").unwrap_or_else(|_| default.to_owned()))
    }

    /// The realm of this name.
    pub fn named(name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(Self { name: name.to_owned() })
    }

    /// All realms that have state.
    pub fn all() -> Vec<Self> {
        names_in(Path::new(STATE_ROOT)).into_iter().map(|name| Self { name }).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory with the state of its hosts.
    pub fn dir(&self) -> PathBuf {
        Path::new(STATE_ROOT).join(&self.name)
    }

    /// The directory on disk with what its hosts write.
    pub fn disk(&self, cache: &Cache) -> PathBuf {
        cache.root().join("hosts").join(&self.name)
    }

    /// The directory that all its hosts see as `/shared`.
    pub fn shared(&self, cache: &Cache) -> PathBuf {
        // A name that no host can have.
        self.disk(cache).join(".shared")
    }

    /// The name of its bridge's network namespace.
    pub fn net_namespace(&self) -> String {
        format!("fastmig-{}", self.name)
    }

    /// The states of its hosts, also of those that are half up or dead.
    pub fn hosts(&self) -> Vec<HostState> {
        names_in(&self.dir()).iter().filter_map(|name| HostState::load(self, name).ok()).collect()
    }

    /// Keeps others from bringing hosts up or down meanwhile.
    pub fn lock(&self) -> Result<Flock<File>> {
        fs::create_dir_all(STATE_ROOT)?;
        lock_file(&Path::new(STATE_ROOT).join(format!(".{}.lock", self.name)))
    }

    /// Takes away what the realm itself has once its last host is gone.
    pub fn remove_if_empty(&self, cache: &Cache) -> Result<()> {
        if !names_in(&self.dir()).is_empty() {
            return Ok(());
        }
        network::remove(self)?;
        remove_tree(&self.disk(cache))?;
        remove_tree(&self.dir())
    }
}

/// Names of realms and hosts end up in paths, cgroups and network interfaces (15 bytes, with a prefix).
pub fn check_name(name: &str) -> Result<()> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || name.len() > 12 || !plain || name.starts_with('-') {
        bail!("{name:?} is no name: one to twelve lower-case letters, digits and dashes");
    }
    Ok(())
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| check_name(name).is_ok());
    names.sort();
    names
}

/// Writes a file in one step: readers see the old content or the new.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("part");
    fs::write(&temporary, content).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "-a", "A", "a.b", "thirteen-long"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("host-a2").is_ok());
    }
}
