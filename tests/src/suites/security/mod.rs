//! What a hostile image, a hostile peer or a hostile application can do: nothing outside its container.
//!
//! | file | what |
//! |---|---|
//! | `peers` | whoever reaches the daemon's port |
//! | `at_rest` | what lies on a disk |
//! | `threat_model` | whether the tests exist that the document names |
//! | `capabilities` | what CRIU cannot do without, one by one |
//! | `intake` | the same from a host of the cluster |
//! | `stored` | the same out of a store |
//! | `inside` | CRIU as a process of the container |
//! | `images` | checkpoints that somebody made to do harm, against a restore |
//! | `craft` | how they are made |
//! | `outside` | what must stay as it was |
//! | `privileges` | what an application has, compared with runc's |

mod at_rest;
mod capabilities;
mod craft;
mod images;
mod inside;
mod intake;
mod outside;
mod peers;
mod privileges;
mod stage;
mod stored;
#[cfg(test)]
mod threat_model;

use anyhow::Result;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "security", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("security", ctx, &[skipped]));
    }
    let all = [
        images::CASES,
        stored::CASES,
        intake::CASES,
        peers::CASES,
        privileges::CASES,
        capabilities::CASES,
        inside::CASES,
        at_rest::CASES,
    ]
    .concat();
    Ok(run_cases("security", ctx, &all))
}
