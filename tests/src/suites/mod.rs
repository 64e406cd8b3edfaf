//! The test suites, by name.

mod clients;
mod faults;
mod hosts;
mod memory;
mod migration;
mod security;
mod shim;
mod unit;
mod vm;

use crate::framework::vm::Kernel;
use crate::framework::{Ctx, Tally};

/// Runs a suite and counts.
pub type Run = fn(&Ctx) -> anyhow::Result<Tally>;

/// All suites, in the order in which they run: what is fast comes first.
pub fn suites() -> &'static [(&'static str, Run)] {
    &[
        ("unit", unit::run),
        ("hosts", hosts::run),
        ("shim", shim::run),
        ("migration", migration::run),
        ("security", security::run),
        ("memory", memory::run),
        ("faults", faults::run),
        ("clients", clients::run),
        ("vm", vm::run),
    ]
}

/// Puts the tables that the suites `clients` and `faults` made into README and `docs/faults.md`.
///
/// # Errors
/// When there is neither, or a file cannot be written.
pub fn put_tables() -> anyhow::Result<()> {
    match (clients::put_into_readme(), faults::put_into_docs()) {
        // Who has run one of the suites wants its table.
        (Err(e), Err(_)) => Err(e),
        _ => Ok(()),
    }
}

/// Runs the suite `vm` on these kernels alone.
pub fn run_on_kernels(ctx: &Ctx, kernels: &[Kernel]) -> anyhow::Result<Tally> {
    vm::run_on(ctx, kernels)
}
