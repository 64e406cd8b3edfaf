//! `cargo xtask test`: runs suites and prints a line of counts for each.

use anyhow::{bail, Result};
use clap::Args;
use fastmig_tests::framework::{Ctx, Tally};
use fastmig_tests::suites::{suites, Run};

/// Emulated machines are slow: CI has no time for them.
const ON_REQUEST: &str = "vm";

#[derive(Args)]
pub(crate) struct Arguments {
    /// The suites to run [default: all but vm, whose emulated machines take minutes]
    suites: Vec<String>,
    /// Run only the cases whose name contains this
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// Try a failing case again so many times; its failure is printed all the same
    #[arg(long, default_value_t = 0)]
    retries: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen = choose(&arguments.suites)?;
    let mut failed = Vec::new();
    for (name, run) in chosen {
        let ctx = Ctx::new(arguments.only.clone()).with_retries(arguments.retries);
        let tally = run(&ctx).unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Tally { failed: 1, ..Tally::default() }
        });
        // The hosts go down before the result: what goes wrong there is seen above it.
        drop(ctx);
        println!("{name}: {tally}");
        if tally.failed > 0 {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Prints the counts of one suite; an error when a case of it has failed.
pub(crate) fn report(suite: &str, tally: Tally) -> Result<()> {
    println!("{suite}: {tally}");
    if tally.failed > 0 {
        bail!("failed: {suite}");
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<(&'static str, Run)>> {
    if names.is_empty() {
        return Ok(suites().iter().filter(|(name, _)| *name != ON_REQUEST).copied().collect());
    }
    let known: Vec<&str> = suites().iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no suite {unknown}; there are: {}", known.join(", "));
    }
    Ok(suites().iter().filter(|(name, _)| names.iter().any(|wanted| wanted == name)).copied().collect())
}
