//! What is known of a host outside it: written before anything is made, so that `down` can undo a half-finished `up`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cgroups::Hierarchy;
use super::process::ProcessId;
use super::realm::{write_atomically, Realm};
use super::recipe::Generation;

/// The plan of a host, and where its parts are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostState {
    /// The realm it belongs to.
    pub realm: String,
    /// Its name in the realm.
    pub name: String,
    /// The Debian release it runs.
    pub generation: Generation,
    /// The last number of its address.
    pub number: u8,
    /// The cached tree below its root.
    pub root: PathBuf,
    /// Its own directory on disk.
    pub disk: PathBuf,
    /// What it sees as `/shared`.
    pub shared: PathBuf,
    /// Its cgroup in each hierarchy.
    pub cgroups: Vec<Hierarchy>,
}

impl HostState {
    /// Reads the state of the host `name`.
    pub fn load(realm: &Realm, name: &str) -> Result<Self> {
        Self::read(&realm.dir().join(name).join("state.json"))
    }

    /// Reads a state file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    /// Writes it, and makes its directory.
    pub fn save(&self) -> Result<()> {
        fs::create_dir_all(self.dir())?;
        write_atomically(&self.file(), &serde_json::to_vec_pretty(self)?)
    }

    /// The directory of this state.
    pub fn dir(&self) -> PathBuf {
        Path::new(super::realm::STATE_ROOT).join(&self.realm).join(&self.name)
    }

    /// The file of this state.
    pub fn file(&self) -> PathBuf {
        self.dir().join("state.json")
    }

    /// The name that the host gives itself.
    pub fn hostname(&self) -> String {
        format!("host-{}", self.name)
    }

    /// Its address on the realm's bridge.
    pub fn address(&self) -> String {
        format!("10.99.0.{}", self.number)
    }

    /// Its process 1, when it has been started.
    pub fn init(&self) -> Option<ProcessId> {
        serde_json::from_slice(&fs::read(self.dir().join("init.json")).ok()?).ok()
    }

    /// Remembers its process 1.
    pub fn save_init(&self, init: ProcessId) -> Result<()> {
        write_atomically(&self.dir().join("init.json"), &serde_json::to_vec(&init)?)
    }
}

/// The cached trees that hosts of any realm stand on.
pub(crate) fn roots_in_use() -> Vec<PathBuf> {
    Realm::all().iter().flat_map(Realm::hosts).map(|state| state.root).collect()
}
