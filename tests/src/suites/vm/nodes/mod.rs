//! FastMig as its Debian package installs it, on two whole machines: systemd as PID 1, cgroup v2, AppArmor enforcing.
//!
//! | file | what |
//! |---|---|
//! | `container` | a container of a node, made by `ctr` |
//! | `apparmor` | profiles: whose a container is under, and CRIU, and what was restored |
//! | `init` | the init's own profile, and what it keeps the init from |
//! | `applications` | redis, nginx with its workers, PostgreSQL: saved, restored, moved |
//! | `reboot` | power lost in the middle of a migration |
//! | `older` | the kernel that sees writes by soft-dirty bits alone |

mod apparmor;
mod applications;
mod container;
mod init;
mod older;
mod reboot;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::framework::cache::Cache;
use crate::framework::suite::run_cases;
use crate::framework::vm::cluster::NODES;
use crate::framework::vm::{Cluster, Kernel};
use crate::framework::{Case, Ctx, Tally};

/// What all cases use together, and those that there is time for always.
const IMAGES: &[&str] = &["nginx", "postgres", "python", "redis"];
const IMAGES_IN_BRIEF: &[&str] = &["nginx", "python"];

/// Whether one machine is enough.
static BRIEF: AtomicBool = AtomicBool::new(false);

/// Those that run, and on which kernel: two at a time are enough for one machine.
static RUNNING: Mutex<Option<(Kernel, Arc<Cluster>)>> = Mutex::new(None);

/// Runs the cases that are wanted; nothing is booted when none is.
pub(super) fn run(ctx: &Ctx) -> Tally {
    BRIEF.store(ctx.is_brief(), Ordering::Relaxed);
    let tally = run_cases("vm", ctx, &cases(ctx));
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = None;
    tally
}

fn cases(ctx: &Ctx) -> Vec<Case> {
    if ctx.is_brief() {
        return [apparmor::CASES, init::CASES, applications::IN_BRIEF].concat();
    }
    [apparmor::CASES, init::CASES, applications::CASES, reboot::CASES, older::CASES].concat()
}

/// How many cases are wanted.
pub(super) fn wanted(ctx: &Ctx) -> usize {
    cases(ctx).iter().filter(|case| ctx.wants(case.name)).count()
}

/// The nodes on `kernel`, booted by the first case that asks.
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
        None if BRIEF.load(Ordering::Relaxed) => Cluster::start_one(&cache, kernel, IMAGES_IN_BRIEF)?,
        None => Cluster::start(&cache, kernel, IMAGES)?,
    };
    let cluster = Arc::new(cluster);
    *running = Some((kernel, Arc::clone(&cluster)));
    Ok(cluster)
}
