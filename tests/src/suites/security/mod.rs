//! What a hostile image, a hostile peer or a hostile application can do: nothing outside its container.
//!
//! | file | what |
//! |---|---|
//! | `images` | checkpoints that somebody made to do harm, against a restore |
//! | `craft` | how they are made |
//! | `outside` | what must stay as it was |

mod craft;
mod images;
mod outside;
mod stage;

use anyhow::Result;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "security", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("security", ctx, &[skipped]));
    }
    Ok(run_cases("security", ctx, &[images::CASES].concat()))
}
