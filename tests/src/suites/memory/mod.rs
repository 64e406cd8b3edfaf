//! The memory of applications that move: programs of our own that know what each page must hold, and that say how long they
//! stood still. The pauses are printed, and no case depends on them.

mod at_rest;
mod busy;
mod changing;
mod doubt;
mod faults;
mod filled;
mod following;
mod huge;
mod lazily;
mod limits;
mod lost;
mod outlived;
mod sharing;
mod snapshot;
mod stage;

use anyhow::Result;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "memory", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("memory", ctx, &[skipped]));
    }
    let all = [
        filled::CASES,
        changing::CASES,
        following::CASES,
        lost::CASES,
        outlived::CASES,
        busy::CASES,
        sharing::CASES,
        limits::CASES,
        huge::CASES,
        at_rest::CASES,
        lazily::CASES,
        doubt::CASES,
        faults::CASES,
    ]
    .concat();
    Ok(run_cases("memory", ctx, &all))
}
