//! The shim on a real containerd: containers start, move, live on and end as they must.

mod client;
mod configuration;
mod connections;
mod counter;
mod failures;
mod lifecycle;
mod moves;
mod parity;
mod pods;
mod service;
mod stage;

use anyhow::Result;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "shim", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("shim", ctx, &[skipped]));
    }
    let all: Vec<Case> = [
        configuration::CASES,
        parity::CASES,
        moves::CASES,
        lifecycle::CASES,
        failures::CASES,
        service::CASES,
        connections::CASES,
        pods::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect();
    Ok(run_cases("shim", ctx, &all))
}
