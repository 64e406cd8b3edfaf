//! A test host: a Debian machine made of namespaces, brought up in about a second, with nothing of an earlier life in it.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{bail, Context, Error, Result};

use super::cache::Cache;
use super::command::{Cmd, Entry};
use super::leftovers::Snapshot;
use super::mounts::remove_tree;
use super::process::ProcessId;
use super::progress::step;
use super::realm::{check_name, Realm};
use super::recipe::{Equipment, Generation};
use super::state::HostState;
use super::{cgroups, hostns, install, network, rootfs, tools};

/// How long the parts of a dead host may take to go.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// A running host. One made with [`Host::up`] goes down when dropped, unless it is kept.
#[derive(Debug)]
pub struct Host {
    pub(crate) realm: Realm,
    pub(crate) cache: Cache,
    pub(crate) state: HostState,
    init: ProcessId,
    down_on_drop: bool,
    pub(crate) baseline: Mutex<Snapshot>,
}

impl Host {
    /// Brings up the host `name`, with FastMig's CRIU in it.
    pub fn up(
        realm: &Realm,
        cache: &Cache,
        name: &str,
        generation: Generation,
        equipment: Equipment,
    ) -> Result<Self> {
        check_name(name)?;
        tools::ensure(tools::FOR_HOSTS)?;
        let root = rootfs::host_root(cache, generation, equipment)?;
        let bundle = super::bundle::cached(cache)?;
        let host = step(&format!("host {name} ({generation})"), || {
            // Given back before the host can be dropped, which takes it again.
            let _lock = realm.lock()?;
            let state = plan(realm, cache, name, generation, &root)?;
            start(realm, cache, &state).inspect_err(|_| {
                // The first error is the one to tell.
                let _ = take_down(realm, cache, &state);
            })
        })?;
        install::runtime(&host, &bundle)?;
        host.mark_baseline()?;
        Ok(host)
    }

    /// The running host `name` of `realm`; it stays up when this value is dropped.
    pub fn attach(realm: &Realm, cache: &Cache, name: &str) -> Result<Self> {
        let state = HostState::load(realm, name).with_context(|| format!("there is no host {name}"))?;
        let init = state.init().filter(ProcessId::is_alive);
        let init = init.with_context(|| format!("host {name} is dead: cargo xtask hosts down {name}"))?;
        let (realm, cache, baseline) = (realm.clone(), cache.clone(), Mutex::default());
        Ok(Self { realm, cache, state, init, down_on_drop: false, baseline })
    }

    /// Lets it stay up when this value is dropped.
    pub fn keep(mut self) {
        self.down_on_drop = false;
    }

    /// Takes it down now, and says what went wrong.
    pub fn down(mut self) -> Result<()> {
        self.down_on_drop = false;
        down(&self.realm, &self.cache, &self.state.name)
    }

    /// A command in the host: all its namespaces and cgroups, a clean environment.
    pub fn cmd<S: Into<String>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd {
        let cgroup_procs = cgroups::entrances(&self.state.cgroups);
        Cmd::inside(Entry { pid: self.init.pid, cgroup_procs }, argv)
    }

    /// A shell script in the host.
    pub fn sh(&self, script: &str) -> Cmd {
        self.cmd(["sh", "-c", script])
    }

    /// Reads a file of the host.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.cmd(["cat", "--", path]).output()?;
        if !output.status.success() {
            bail!("cannot read {path} on {}: {}", self.name(), output.err().trim());
        }
        Ok(output.stdout)
    }

    /// Writes a file of the host, and makes its directory.
    pub fn write_file(&self, path: &str, content: impl Into<Vec<u8>>) -> Result<()> {
        let script = r#"mkdir -p -- "$(dirname -- "$1")" && cat >"$1""#;
        self.cmd(["sh", "-c", script, "sh", path]).stdin(content).ok().map(drop)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The Debian release it runs.
    pub fn generation(&self) -> Generation {
        self.state.generation
    }

    /// Its address.
    pub fn address(&self) -> String {
        self.state.address()
    }

    /// The number of its PID 1 on this machine.
    pub fn pid(&self) -> i32 {
        self.init.pid
    }

    /// Makes its link slow: so many MiB each second in each direction. [`Host::free_link`] undoes it.
    pub fn limit_link(&self, mib: u32) -> Result<()> {
        network::limit(&self.realm, &self.state, self.init, Some(mib))
    }

    /// Makes its link as fast as it can be.
    pub fn free_link(&self) -> Result<()> {
        network::limit(&self.realm, &self.state, self.init, None)
    }

    /// The directory of this machine that every host of the realm sees as `/shared`.
    pub fn shared_dir(&self) -> &Path {
        &self.state.shared
    }

    /// A path of the host as this machine sees it. Only for paths without absolute symbolic links.
    pub(crate) fn outside(&self, path: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.init.pid.to_string()).join("root").join(path.trim_start_matches('/'))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.down_on_drop {
            if let Err(error) = down(&self.realm, &self.cache, &self.state.name) {
                eprintln!("host {}: {error:#}", self.state.name);
            }
        }
    }
}

/// Takes a host down, also one that is half up or whose processes are gone, and what nobody else of its realm needs.
pub fn down(realm: &Realm, cache: &Cache, name: &str) -> Result<()> {
    let _lock = realm.lock()?;
    let state = HostState::load(realm, name).with_context(|| format!("there is no host {name}"))?;
    take_down(realm, cache, &state)
}

/// Takes down all hosts of a realm.
pub fn down_all(realm: &Realm, cache: &Cache) -> Result<()> {
    let _lock = realm.lock()?;
    let mut errors: Vec<Error> =
        realm.hosts().iter().filter_map(|state| take_down(realm, cache, state).err()).collect();
    errors.extend(realm.remove_if_empty(cache).err());
    all_or_first(errors)
}

fn plan(realm: &Realm, cache: &Cache, name: &str, generation: Generation, root: &Path) -> Result<HostState> {
    let others = realm.hosts();
    if others.iter().any(|other| other.name == name) {
        bail!("host {name} is there already: cargo xtask hosts down {name}");
    }
    let taken: Vec<u8> = others.iter().map(|other| other.number).collect();
    Ok(HostState {
        realm: realm.name().to_owned(),
        name: name.to_owned(),
        generation,
        number: choose_number(name, &taken).context("no address is free")?,
        root: root.to_owned(),
        disk: realm.disk(cache).join(name),
        shared: realm.shared(cache),
        cgroups: cgroups::plan(&format!("fastmig-{}-{name}", realm.name()))?,
    })
}

/// Hosts a, b, c have the addresses 1, 2, 3; others any that is free.
fn choose_number(name: &str, taken: &[u8]) -> Option<u8> {
    match name.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        _ => (30..=254).find(|number| !taken.contains(number)),
    }
}

fn start(realm: &Realm, cache: &Cache, state: &HostState) -> Result<Host> {
    state.save()?;
    // What an earlier life left on disk, should its state have been lost.
    remove_tree(&state.disk)?;
    for dir in ["root", "upper", "work", "fastmig"] {
        fs::create_dir_all(state.disk.join(dir))?;
    }
    fs::create_dir_all(&state.shared)?;
    cgroups::create(&state.cgroups)?;
    network::create(realm)?;
    Cmd::new(hostns::stage("1", state)?).timeout(Duration::from_secs(30)).ok()?;
    let init = state.init().context("the host has no PID 1")?;
    network::join(realm, state, init)?;
    let (realm, cache, state) = (realm.clone(), cache.clone(), state.clone());
    Ok(Host { realm, cache, state, init, down_on_drop: true, baseline: Mutex::default() })
}

/// Goes on after an error, so that as little as possible stays behind.
fn take_down(realm: &Realm, cache: &Cache, state: &HostState) -> Result<()> {
    let mut errors = Vec::new();
    errors.extend(end_processes(state).err());
    errors.extend(cgroups::remove(&state.cgroups, GONE_LIMIT).err());
    errors.extend(network::leave(realm, state).err());
    errors.extend(remove_tree(&state.disk).err());
    if errors.is_empty() {
        // Last, for it is what a second try needs.
        errors.extend(remove_tree(&state.dir()).err());
        errors.extend(realm.remove_if_empty(cache).err());
    }
    all_or_first(errors)
}

/// The end of PID 1 ends all processes of its namespace, but frozen ones; processes that were about to enter are found in the
/// host's cgroups.
fn end_processes(state: &HostState) -> Result<()> {
    cgroups::thaw(&state.cgroups);
    if let Some(init) = state.init() {
        init.kill();
    }
    cgroups::kill_members(&state.cgroups);
    state.init().map_or(Ok(()), |init| init.wait_gone(GONE_LIMIT))
}

fn all_or_first(errors: Vec<Error>) -> Result<()> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    Err(errors.fold(first, |first, other| first.context(format!("{other:#}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_names_where_they_can() {
        assert_eq!(choose_number("a", &[]), Some(1));
        assert_eq!(choose_number("b", &[2]), Some(2));
        assert_eq!(choose_number("client", &[30, 31]), Some(32));
    }
}
