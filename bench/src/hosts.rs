//! Two hosts with FastMig, which know each other.

use std::sync::Arc;

use anyhow::Result;
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::daemon::cluster;
use fastmig_tests::framework::realm::Realm;
use fastmig_tests::framework::{dist, Equipment, Generation, Host};

/// Both run Debian forky, and have these images.
pub(crate) fn up(images: &[&str]) -> Result<[Arc<Host>; 2]> {
    let (realm, cache) = (Realm::or_from_environment("bench")?, Cache::open()?);
    let up = |name| Host::up(&realm, &cache, name, Generation::Forky, Equipment::Plain).map(Arc::new);
    let hosts = [up("a")?, up("b")?];
    let dist = dist::build()?;
    for host in &hosts {
        host.install(&dist)?;
        host.start_containerd()?;
        host.import_images(images)?;
    }
    cluster(&[&hosts[0], &hosts[1]])?;
    Ok(hosts)
}
