//! What the cases stand on: two hosts of different generations with FastMig and containerd, which all cases of a run share.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::framework::{dist, Ctx, Generation, Host};

/// The hosts that applications move between: a runs Debian trixie, b the coming forky.
pub(super) fn pair(ctx: &Ctx) -> Result<(Arc<Host>, Arc<Host>)> {
    Ok((host(ctx, "a", Generation::Trixie)?, host(ctx, "b", Generation::Forky)?))
}

/// A host with FastMig and containerd.
pub(super) fn host(ctx: &Ctx, name: &str, generation: Generation) -> Result<Arc<Host>> {
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
pub(super) fn with_images(host: &Host, images: &[&str]) -> Result<()> {
    host.import_images(images)?;
    host.mark_baseline()
}
