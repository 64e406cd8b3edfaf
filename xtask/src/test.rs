//! `cargo xtask test`: runs suites and prints a line of counts for each.

use std::{env, fs};

use anyhow::{bail, Result};
use clap::Args;
use fastmig_tests::framework::{failures, Ctx, Tally};
use fastmig_tests::suites::{suites, Run};
use tempfile::NamedTempFile;

use crate::lanes;

/// Emulated machines are slow: CI has time for some cases only.
const ON_REQUEST: &str = "vm";

/// The suite that runs before the lanes do.
const ALONE: &str = "unit";

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
    /// How many suites run at once, each lane with hosts of its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    lanes: u8,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen = choose(&arguments.suites)?;
    let of_lanes = NamedTempFile::new()?;
    let failed = match chosen.as_slice() {
        [suite] => one_after_the_other(arguments, &[*suite]),
        several if arguments.lanes == 1 => one_after_the_other(arguments, several),
        several => {
            // It keeps every processor busy by itself, and builds what the others need.
            let (alone, beside): (Vec<_>, Vec<_>) = several.iter().partition(|(name, _)| *name == ALONE);
            let mut failed = one_after_the_other(arguments, &alone);
            let names: Vec<&str> = beside.iter().map(|(name, _)| *name).collect();
            failed.extend(lanes::run(&names, arguments.lanes, &options(arguments), of_lanes.path())?);
            failed
        }
    };
    failures::hand_over()?;
    if failed.is_empty() {
        return Ok(());
    }
    if env::var_os(failures::FILE).is_none() {
        println!("\nwhat failed:\n{}{}", failures::noted(), fs::read_to_string(of_lanes.path())?);
    }
    bail!("failed: {}", failed.join(", "))
}

/// What a lane is told besides the suite.
fn options(arguments: &Arguments) -> Vec<String> {
    let mut options = vec!["--retries".to_owned(), arguments.retries.to_string()];
    options.extend(arguments.only.iter().flat_map(|only| ["--only".to_owned(), only.clone()]));
    options
}

/// Runs suites here; answers the names of those that failed.
fn one_after_the_other(arguments: &Arguments, chosen: &[(&'static str, Run)]) -> Vec<&'static str> {
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
            failed.push(*name);
        }
    }
    failed
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
