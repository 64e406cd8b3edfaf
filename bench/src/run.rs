//! One run: suite after suite, whatever fails, and where its figures go.

use std::fs;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{anyhow, bail, Context, Result};
use clap::{Args, ValueEnum};
use fastmig_tests::framework::dist::target_dir;

use crate::bench::{Bench, Thoroughness};
use crate::figures::{summary, Report};
use crate::suites::Suite;
use crate::{plots, readme};

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// Fewer works and rounds: at most ten minutes on two cores
    #[arg(long)]
    quick: bool,
    /// Only this suite; may be given several times
    #[arg(long, value_name = "NAME")]
    suite: Vec<Suite>,
    /// Only works and tools whose name contains this: `m128`, `runc-tar`; may be given several times
    #[arg(long, value_name = "SUBSTRING")]
    only: Vec<String>,
    /// Rounds, in place of as many as each suite takes
    #[arg(long)]
    rounds: Option<usize>,
    /// The report goes to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Report, tables and charts go there [default: target/bench]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures, prints tables, and writes report, tables and charts.
///
/// # Errors
/// When a file cannot be written; or, once all is written, when a part of a suite has failed.
pub fn run(options: &Options) -> Result<()> {
    let out = options.out.clone().unwrap_or_else(|| target_dir().join("bench"));
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let how = Thoroughness { quick: options.quick, only: options.only.clone(), rounds: options.rounds };
    let mut bench = Bench::new(how, &out);
    let all = Suite::value_variants();
    let suites = if options.suite.is_empty() { all } else { options.suite.as_slice() };
    for suite in suites {
        let begun = Instant::now();
        eprintln!("{}:", suite.name());
        if let Err(error) = run_one(*suite, &mut bench) {
            bench.fail("", &error);
            // Whatever hangs there does not hang in the next one.
            bench.down();
        }
        eprintln!("{}: {:.0} s", suite.name(), begun.elapsed().as_secs_f64());
    }
    bench.down();
    tell(&bench.book.report(), options, &out)
}

fn run_one(suite: Suite, bench: &mut Bench) -> Result<()> {
    let ran = catch_unwind(AssertUnwindSafe(|| suite.run(bench)));
    ran.unwrap_or_else(|_| Err(anyhow!("it panicked")))
}

fn tell(report: &Report, options: &Options, out: &Path) -> Result<()> {
    let text = summary(report);
    println!("{text}");
    report.write(&out.join("report.json"))?;
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    let tables = out.join("tables.md");
    fs::write(&tables, text).with_context(|| format!("cannot write {}", tables.display()))?;
    for path in plots::write(report, out)? {
        println!("{}", path.display());
    }
    // Part of a run says too little.
    if options.suite.is_empty() && options.only.is_empty() {
        readme::keep(report)?;
    }
    if !report.failures.is_empty() {
        bail!("{} parts failed; the rest is in {}", report.failures.len(), out.display());
    }
    Ok(())
}
