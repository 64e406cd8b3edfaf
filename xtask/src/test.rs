//! `cargo xtask test`: runs suites and prints a line of counts for each.

use std::{env, fs};

use anyhow::{bail, Result};
use clap::Args;
use fastmig_tests::framework::{failures, Ctx, Tally};
use fastmig_tests::suites::{suites, Run};
use tempfile::NamedTempFile;

use crate::lanes;

/// Emulated machines are slow: where nobody asks for them by name, there is time for some cases only, and a lane that they have
/// to themselves.
const EMULATED: &str = "vm";

/// The suite that runs before the lanes do.
const ALONE: &str = "unit";

#[derive(Args)]
pub(crate) struct Arguments {
    /// The suites to run [default: all, of vm what takes minutes only]
    suites: Vec<String>,
    /// Run only the cases whose name contains this
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// Try a failing case again so many times; its failure is printed all the same
    #[arg(long, default_value_t = 0)]
    retries: u32,
    /// Of vm, whose machines are emulated, only what no other suite shows
    #[arg(long)]
    brief: bool,
    /// How many suites run at once, each lane with hosts of its own; vm has one more to itself
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
            let names = beside.iter().map(|(name, _)| *name);
            let (apart, names): (Vec<_>, Vec<_>) = names.partition(|name| *name == EMULATED);
            let all_of_them = arguments.suites.is_empty();
            let options = options(arguments, arguments.brief || all_of_them);
            failed.extend(lanes::run(&names, &apart, arguments.lanes, &options, of_lanes.path())?);
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
fn options(arguments: &Arguments, brief: bool) -> Vec<String> {
    let mut options = vec!["--retries".to_owned(), arguments.retries.to_string()];
    options.extend(brief.then(|| "--brief".to_owned()));
    options.extend(arguments.only.iter().flat_map(|only| ["--only".to_owned(), only.clone()]));
    options
}

/// Runs suites here; answers the names of those that failed.
fn one_after_the_other(arguments: &Arguments, chosen: &[(&'static str, Run)]) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for (name, run) in chosen {
        let brief = arguments.brief || arguments.suites.is_empty();
        let ctx = Ctx::new(arguments.only.clone()).with_retries(arguments.retries).in_brief(brief);
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
        return Ok(suites().to_vec());
    }
    let known: Vec<&str> = suites().iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no suite {unknown}; there are: {}", known.join(", "));
    }
    Ok(suites().iter().filter(|(name, _)| names.iter().any(|wanted| wanted == name)).copied().collect())
}
