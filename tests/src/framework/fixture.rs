//! What a crippled test machine needs for CRIU to work, and no real host does.
//!
//! Where root lacks CAP_SYS_RESOURCE, CRIU cannot read the limits of other users' tasks. There, and only there, a small
//! library of ours is put beside the CRIU of the test hosts and named in the preload list of its loader.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::cache::Cache;
use super::command::Cmd;
use super::host::Host;
use super::install::RUNTIME_DIR;
use super::tools;

const SOURCE: &str = include_str!("../../fixtures/prlimit-preload.c");

/// The bit of CAP_SYS_RESOURCE in a capability set.
const CAP_SYS_RESOURCE: u32 = 24;

/// The preload list of the bundled loader, and the fixture, below the runtime directory as hosts have it.
const LIST: &str = "pre1";
const LIBRARY: &str = "fixture/prlimit-preload.so";

/// The description of the bundle, below the same.
const BUNDLE: &str = "criu/bundle.json";

/// The runtime directory as containers see it.
const IN_CONTAINER: &str = "/dev/.fastmig";

/// Whether this machine needs the fixture.
pub fn is_needed() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("no capabilities in the status")?;
    let effective = u64::from_str_radix(line.trim(), 16).context("capabilities that are no number")?;
    Ok(effective >> CAP_SYS_RESOURCE & 1 == 0)
}

/// Puts the fixture into a host, if it is needed here.
pub(crate) fn install(host: &Host) -> Result<()> {
    if !is_needed()? {
        return Ok(());
    }
    let library = compiled(&host.cache)?;
    let runtime = host.outside(RUNTIME_DIR);
    let target = runtime.join(LIBRARY);
    fs::create_dir_all(target.parent().unwrap_or(&runtime))?;
    fs::copy(&library, &target).with_context(|| format!("cannot copy {}", library.display()))?;
    fs::write(runtime.join(LIST), format!("{IN_CONTAINER}/{LIBRARY}\n"))?;
    load_first(&runtime.join(BUNDLE))?;
    eprintln!(
        "host {}: root lacks CAP_SYS_RESOURCE here, so CRIU reads limits through a fixture",
        host.name()
    );
    Ok(())
}

/// The library that shows CRIU memory otherwise takes over the same function, and is loaded before what the list names.
fn load_first(bundle: &Path) -> Result<()> {
    let text = fs::read(bundle).with_context(|| format!("cannot read {}", bundle.display()))?;
    let mut description: Value = serde_json::from_slice(&text)?;
    if let Some(view) = description["view"].as_str().filter(|view| !view.contains(LIBRARY)) {
        description["view"] = format!("../{LIBRARY}:{IN_CONTAINER}/criu/{view}").into();
        fs::write(bundle, description.to_string())?;
    }
    Ok(())
}

fn compiled(cache: &Cache) -> Result<PathBuf> {
    cache.get("fixtures", "prlimit-preload", SOURCE, |target| compile(SOURCE, target))
}

fn compile(source: &str, target: &Path) -> Result<()> {
    tools::ensure(tools::FOR_FIXTURES)?;
    let target = target.to_str().context("a path that is not UTF-8")?;
    let argv = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-x", "c", "-o", target, "-"];
    Cmd::new(argv).stdin(source).ok()?;
    Ok(())
}

const BLIND_SPOT: &str = include_str!("../../fixtures/blind-spot.c");
const BLIND_SPOT_LIBRARY: &str = "fixture/blind-spot.so";

/// A host whose CRIU asks the kernel itself about one mapping, until dropped: nobody shows it otherwise.
#[derive(Debug)]
pub struct BlindSpot {
    bundle: PathBuf,
    before: Vec<u8>,
}

impl BlindSpot {
    /// On a host.
    ///
    /// # Errors
    /// When there is no compiler, or no bundle.
    pub fn make(host: &Host) -> Result<Self> {
        let library =
            host.cache.get("fixtures", "blind-spot", BLIND_SPOT, |target| compile(BLIND_SPOT, target))?;
        let runtime = host.outside(RUNTIME_DIR);
        let target = runtime.join(BLIND_SPOT_LIBRARY);
        fs::create_dir_all(target.parent().unwrap_or(&runtime))?;
        fs::copy(&library, &target).with_context(|| format!("cannot copy {}", library.display()))?;
        let bundle = runtime.join(BUNDLE);
        let before = fs::read(&bundle).with_context(|| format!("cannot read {}", bundle.display()))?;
        let mut description: Value = serde_json::from_slice(&before)?;
        let view = description["view"].as_str().context("CRIU is shown nothing here")?;
        description["view"] = format!("../{BLIND_SPOT_LIBRARY}:{IN_CONTAINER}/criu/{view}").into();
        fs::write(&bundle, description.to_string())?;
        Ok(Self { bundle, before })
    }
}

impl Drop for BlindSpot {
    fn drop(&mut self) {
        // Should that fail, the cases after this one say so.
        let _ = fs::write(&self.bundle, &self.before);
    }
}
