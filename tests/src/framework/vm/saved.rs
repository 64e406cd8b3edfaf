//! A machine as it was when it had just come up: its disk and its state, so that nobody waits for that again.
//!
//! FastMig is not in it, nor what its containerd has: that comes with the payload, which changes with every build.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::node::{recipe, Node, Site, Start, DISK_BYTES};
use super::{monitor::Monitor, system, Kernel};
use crate::framework::cache::Cache;
use crate::framework::process::wait_until;
use crate::framework::Cmd;

/// Changes when the way of saving does.
const REVISION: u32 = 1;

const END_LIMIT: Duration = Duration::from_secs(60);

/// What is found again at its next start: less, the less runs.
const SETTLE: &str = "systemctl stop containerd; sync";

/// One machine's.
#[derive(Debug)]
pub(super) struct Saved {
    directory: PathBuf,
}

impl Saved {
    /// Of `node1` or `node2` on `kernel`; booted and saved when the cache has none.
    pub(super) fn of(site: &Site, number: u8, kernel: Kernel) -> Result<Self> {
        let cache = site.cache();
        let key = format!("{REVISION}\n{SETTLE}\n{number}\n{}\n{}", recipe(cache, kernel)?, version()?);
        let name = format!("saved-{kernel}-node{number}");
        let directory = cache.get("disks", &name, &key, |target| make(cache, target, number, kernel))?;
        Ok(Self { directory })
    }

    /// The next one is made anew.
    pub(super) fn forget(&self) -> Result<()> {
        let directory = &self.directory;
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
    }

    /// To be written to in a copy only.
    pub(super) fn disk(&self) -> PathBuf {
        disk(&self.directory)
    }

    pub(super) fn state(&self) -> PathBuf {
        state(&self.directory)
    }
}

fn disk(directory: &Path) -> PathBuf {
    directory.join("disk")
}

fn state(directory: &Path) -> PathBuf {
    directory.join("state")
}

/// A state is for the QEMU that has written it.
fn version() -> Result<String> {
    Cmd::new(["qemu-system-x86_64", "--version"]).ok()
}

fn make(cache: &Cache, target: &Path, number: u8, kernel: Kernel) -> Result<()> {
    fs::create_dir(target)?;
    let below = system::disk(cache)?;
    let disk = disk(target);
    let [below, above] = [&below, &disk].map(|path| path.to_str().context("a path that is not UTF-8"));
    Cmd::new(["qemu-img", "create", "-q", "-f", "qcow2", "-b", below?, "-F", "raw", above?]).ok()?;
    let site = Arc::new(Site::alone(cache)?);
    // There will be one when it goes on, and it has not looked at it before.
    File::create(site.payload())?.set_len(DISK_BYTES)?;
    let monitor = site.directory().join("monitor");
    let node = Node::start(&site, number, kernel, &Start::Cold { disk: &disk, monitor: &monitor })?;
    node.sh(SETTLE)?;
    let mut monitor = Monitor::connect(&monitor)?;
    monitor.save(&state(target)).with_context(|| format!("{kernel}, node{number}"))?;
    monitor.quit()?;
    wait_until(END_LIMIT, || !node.is_powered()).context("QEMU does not end")
}
