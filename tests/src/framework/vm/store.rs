//! What containerd keeps of images, made by a test host: an emulated machine takes minutes to unpack a large one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::framework::cache::Cache;
use crate::framework::realm::Realm;
use crate::framework::{image, Cmd, Equipment, Generation, Host};

/// Where containerd keeps it.
const CONTAINERD: &str = "/var/lib/containerd";

const LIMIT: Duration = Duration::from_secs(300);

/// A directory to be containerd's, made when the cache has none with these images.
///
/// # Errors
/// When there is no such image, or no test host can be had.
pub fn of(cache: &Cache, images: &[&str]) -> Result<PathBuf> {
    let archives = images.iter().map(|name| image::archive(cache, name)).collect::<Result<Vec<_>>>()?;
    let name = format!("store-{}", images.join("-"));
    cache.get("disks", &name, &format!("{archives:?}"), |target| make(cache, images, target))
}

fn make(cache: &Cache, images: &[&str], target: &Path) -> Result<()> {
    let realm = Realm::named("vm-images")?;
    fs::create_dir_all(realm.shared(cache))?;
    // The nodes' own release: what is kept differs between versions of containerd.
    let host = Host::up(&realm, cache, "images", Generation::Trixie, Equipment::Plain)?;
    let made = import(&host, images, target);
    let down = host.down();
    made.and(down)?;
    realm.remove_if_empty(cache)
}

fn import(host: &Host, images: &[&str], target: &Path) -> Result<()> {
    host.start_containerd()?;
    host.import_images(images)?;
    // It has written all that it told; what it still writes is of nobody.
    host.kill_containerd()?;
    let (from, to) = (host.outside(CONTAINERD), target.to_str().context("a path that is not UTF-8")?);
    let from = from.to_str().context("a path that is not UTF-8")?;
    Cmd::new(["cp", "-a", "--", from, to]).timeout(LIMIT).ok().map(drop)
}
