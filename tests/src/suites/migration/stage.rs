//! What the cases stand on: two hosts of different generations with FastMig and containerd, which all cases of a run share.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::framework::daemon::cluster;
pub(in crate::suites) use crate::framework::leftovers::nothing_is_left;
use crate::framework::{dist, Ctx, Generation, Host};

/// The hosts that applications move between: a runs Debian trixie, b the coming forky.
pub(in crate::suites) fn pair(ctx: &Ctx) -> Result<(Arc<Host>, Arc<Host>)> {
    Ok((host(ctx, "a", Generation::Trixie)?, host(ctx, "b", Generation::Forky)?))
}

/// A host with FastMig and containerd.
pub(in crate::suites) fn host(ctx: &Ctx, name: &str, generation: Generation) -> Result<Arc<Host>> {
    static READY: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    let host = ctx.session()?.host(name, generation)?;
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !ready.contains(&host.pid()) {
        host.install(&dist::build()?)?;
        host.start_containerd()?;
        ready.push(host.pid());
    }
    Ok(host)
}

/// Imports images and takes what is there then for what belongs there.
pub(in crate::suites) fn with_images(host: &Host, images: &[&str]) -> Result<()> {
    host.import_images(images)?;
    host.mark_baseline()
}

/// The same two, each with a daemon that knows the other's.
pub(in crate::suites) fn pair_of_daemons(ctx: &Ctx) -> Result<(Arc<Host>, Arc<Host>)> {
    static JOINED: Mutex<Option<i32>> = Mutex::new(None);
    let (a, b) = pair(ctx)?;
    let mut joined = JOINED.lock().unwrap_or_else(PoisonError::into_inner);
    if *joined != Some(a.pid()) {
        cluster(&[&a, &b])?;
        *joined = Some(a.pid());
    }
    // Whatever a case before has done to them.
    for host in [&a, &b] {
        if host.fastmigd_get("/healthz").is_err() {
            // One that a case has left stopped; there may be none.
            let _ = host.kill_fastmigd();
            host.start_fastmigd()?;
        }
    }
    Ok((a, b))
}
