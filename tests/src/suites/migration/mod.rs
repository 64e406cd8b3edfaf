//! Applications that move between two hosts, and what goes with them.

mod applications;
mod binds;
pub(super) mod faults;
mod hooks;
mod recreate;
mod rounds;
pub(super) mod stage;
mod store;

use anyhow::Result;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "migration", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("migration", ctx, &[skipped]));
    }
    let all: Vec<Case> = [applications::CASES, binds::CASES, rounds::CASES, faults::CASES]
        .iter()
        .chain(hooks::CASES)
        .chain(recreate::CASES)
        .chain(store::CASES)
        .copied()
        .flatten()
        .copied()
        .collect();
    Ok(run_cases("migration", ctx, &all))
}
