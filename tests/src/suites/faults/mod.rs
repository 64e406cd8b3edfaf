//! Applications that end: what their policy decides, and that it is done in place, whichever client made the container.
//!
//! | file | what it shows |
//! |---|---|
//! | `stage` | an application that ends as it is told, in a container with a policy; the clients |
//! | `actions` | each action, for exit codes, signals and want of memory, under each client |
//! | `keeper` | a keeper that is killed, and one that nobody replaces |
//! | `daemon` | what the daemon tells of decisions |
//! | `matrix` | every fault in every phase: the table in `docs/faults.md` |
//! | `periodic` | checkpoints that the daemon takes by itself |
//! | `starts` | start options |
//! | `trace` | one id through all that is told of an operation |
//! | `many` | a thousand restarts in place leave nothing behind, and lose no line |

mod actions;
mod daemon;
mod keeper;
mod many;
mod matrix;
mod periodic;
mod stage;
mod starts;
mod trace;

use anyhow::Result;

pub(in crate::suites) use self::matrix::put_into_docs;

use crate::framework::suite::run_cases;
use crate::framework::{Case, Ctx, Outcome, Tally};

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if !nix::unistd::geteuid().is_root() {
        let skipped = Case { name: "faults", run: |_| Outcome::Skipped("needs root".into()) };
        return Ok(run_cases("faults", ctx, &[skipped]));
    }
    let all = [
        actions::CASES,
        keeper::CASES,
        daemon::CASES,
        periodic::CASES,
        starts::CASES,
        trace::CASES,
        many::CASES,
    ];
    let all = [&all.concat(), matrix::CASES].concat();
    Ok(run_cases("faults", ctx, &all))
}
