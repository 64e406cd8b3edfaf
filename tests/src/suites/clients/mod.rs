//! `fastmig` where clients use it: as an OCI runtime in front of runc.

mod install;
mod oci;

use anyhow::Result;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "clients", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("clients", ctx, &[skipped]));
    }
    let all: Vec<Case> = [oci::cases(), install::cases()].concat();
    Ok(run_cases("clients", ctx, &all))
}
