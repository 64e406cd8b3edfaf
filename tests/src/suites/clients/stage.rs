//! What the cases stand on: hosts with every client, containerd and FastMig in them, and the images in every store.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::row::IMAGES;
use crate::apps;
use crate::framework::{dist, Ctx, Equipment, Generation, Host};

/// The images of hosts on which not all of them run.
const FEW_IMAGES: &[&str] = &["busybox", "redis"];

/// The host of this generation; the cases of one run share it. All images are on the older one.
pub(in crate::suites) fn host(ctx: &Ctx, generation: Generation) -> Result<Arc<Host>> {
    static READY: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    let (name, images) = match generation {
        Generation::Trixie => ("clients-t", IMAGES),
        Generation::Forky => ("clients-f", FEW_IMAGES),
    };
    let session = ctx.session()?;
    let host = session.equipped_host(name, generation, Equipment::Clients)?;
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !ready.contains(&host.pid()) {
        apps::all().iter().try_for_each(|app| app.prepare(session))?;
        host.install(&dist::build()?)?;
        host.start_containerd()?;
        host.start_clients()?;
        host.import_images(images)?;
        host.share_images(images)?;
        host.mark_baseline()?;
        ready.push(host.pid());
    }
    Ok(host)
}
