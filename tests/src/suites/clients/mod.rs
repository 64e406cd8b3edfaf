//! The clients of the field on FastMig: nerdctl, docker, podman and ctr, each in the ways in which it can call it; what
//! they call: an OCI runtime in front of runc; and the conformance tests of OCI and CRI.

pub(super) mod client;
mod conformance;
pub(super) mod container;
mod cri;
mod engines;
mod install;
mod oci;
mod parity;
mod row;
mod shim_checkpoints;
pub(super) mod stage;
mod table;
mod unprivileged;
mod volumes;

use anyhow::Result;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(crate) use table::put_into_readme;

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "clients", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("clients", ctx, &[skipped]));
    }
    let own = [
        table::CASES,
        engines::CASES,
        parity::CASES,
        shim_checkpoints::CASES,
        unprivileged::CASES,
        volumes::CASES,
    ];
    let all =
        [oci::cases(), install::cases(), own.concat(), conformance::CASES.to_vec(), cri::CASES.to_vec()];
    Ok(run_cases("clients", ctx, &all.concat()))
}
