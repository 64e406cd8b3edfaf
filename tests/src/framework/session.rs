//! A test run: one at a time, with hosts that live as long as it does.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{bail, Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::prctl::set_child_subreaper;

use super::cache::Cache;
use super::host::{self, Host};
use super::realm::{Realm, OF_TESTS, STATE_ROOT};
use super::recipe::{Equipment, Generation};

/// A run and its hosts, which go down with it.
#[derive(Debug)]
pub struct Session {
    realm: Realm,
    cache: Cache,
    // Dropped after `drop` took the hosts down.
    _lock: Flock<File>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl Session {
    /// Starts a run, and removes what an interrupted one left.
    pub fn start() -> Result<Self> {
        let realm = Realm::or_from_environment(OF_TESTS)?;
        let cache = Cache::open()?;
        let lock = lock(&realm)?;
        // A host's PID 1 becomes our child, so that we reap it: not every machine has an init that does.
        set_child_subreaper(true).context("cannot become a subreaper")?;
        host::down_all(&realm, &cache).context("cannot take down the hosts of an earlier run")?;
        fs::create_dir_all(realm.shared(&cache))?;
        Ok(Self { realm, cache, _lock: lock, hosts: Mutex::default() })
    }

    /// The host `name`: the one that is up already, or a fresh one that stays until the run ends.
    pub fn host(&self, name: &str, generation: Generation) -> Result<Arc<Host>> {
        self.equipped_host(name, generation, Equipment::Plain)
    }

    /// As [`Session::host`], with this equipment.
    pub fn equipped_host(
        &self,
        name: &str,
        generation: Generation,
        equipment: Equipment,
    ) -> Result<Arc<Host>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name) {
            if host.generation() != generation {
                bail!("host {name} runs {} already", host.generation());
            }
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(Host::up(&self.realm, &self.cache, name, generation, equipment)?);
        hosts.insert(name.to_owned(), Arc::clone(&host));
        Ok(host)
    }

    /// A host that belongs to the caller alone, and goes down when dropped.
    pub fn fresh_host(&self, name: &str, generation: Generation) -> Result<Host> {
        self.fresh_equipped_host(name, generation, Equipment::Plain)
    }

    /// As [`Session::fresh_host`], with this equipment.
    pub fn fresh_equipped_host(
        &self,
        name: &str,
        generation: Generation,
        equipment: Equipment,
    ) -> Result<Host> {
        Host::up(&self.realm, &self.cache, name, generation, equipment)
    }

    /// The directory that all hosts of the run see as `/shared`.
    pub fn shared_dir(&self) -> PathBuf {
        self.realm.shared(&self.cache)
    }

    /// What is kept between runs.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Also what a case forgot.
        if let Err(error) = host::down_all(&self.realm, &self.cache) {
            eprintln!("cannot end the run cleanly: {error:#}");
        }
    }
}

fn lock(realm: &Realm) -> Result<Flock<File>> {
    fs::create_dir_all(STATE_ROOT)?;
    let file = File::create(Path::new(STATE_ROOT).join(format!(".{}.run", realm.name())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error).with_context(|| {
        format!("another run uses the realm {}; FASTMIG_REALM=NAME makes one of its own", realm.name())
    })
}
