//! FastMig as its Debian package installs it, on two whole machines: systemd as PID 1, cgroup v2, AppArmor enforcing.
//!
//! | file | what |
//! |---|---|
//! | `container` | a container of a node, made by `ctr` |
//! | `apparmor` | profiles: whose a container is under, and CRIU, and what was restored |
//! | `applications` | redis, nginx with its workers, PostgreSQL: saved, restored, moved |
//! | `reboot` | power lost in the middle of a migration |
//! | `older` | the kernel that sees writes by soft-dirty bits alone |

mod apparmor;
mod applications;
mod container;
mod older;
mod reboot;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::framework::cache::Cache;
use crate::framework::suite::run_cases;
use crate::framework::vm::cluster::NODES;
use crate::framework::vm::{Cluster, Kernel};
use crate::framework::{Case, Ctx, Tally};

/// What all cases use together.
const IMAGES: &[&str] = &["nginx", "postgres", "python", "redis"];

/// Those that run, and on which kernel: two at a time are enough for one machine.
static RUNNING: Mutex<Option<(Kernel, Arc<Cluster>)>> = Mutex::new(None);

/// Runs the cases that are wanted; nothing is booted when none is.
pub(super) fn run(ctx: &Ctx) -> Tally {
    let cases = [apparmor::CASES, applications::CASES, reboot::CASES, older::CASES].concat();
    let tally = run_cases("vm", ctx, &cases);
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = None;
    tally
}

/// How many cases are wanted.
pub(super) fn wanted(ctx: &Ctx) -> usize {
    let all = [apparmor::CASES, applications::CASES, reboot::CASES, older::CASES];
    all.iter().flat_map(|cases| cases.iter()).filter(|case: &&Case| ctx.wants(case.name)).count()
}

/// The two nodes on `kernel`, booted by the first case that asks.
fn cluster(kernel: Kernel) -> Result<Arc<Cluster>> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, cluster)) = running.as_ref().filter(|(which, _)| *which == kernel) {
        return Ok(Arc::clone(cluster));
    }
    // The others go first: one place for machines.
    *running = None;
    let cache = Cache::open()?;
    let cluster = match std::env::var_os(NODES) {
        Some(directory) => Cluster::attach(&cache, directory.as_ref())?,
        None => Cluster::start(&cache, kernel, IMAGES)?,
    };
    let cluster = Arc::new(cluster);
    *running = Some((kernel, Arc::clone(&cluster)));
    Ok(cluster)
}
