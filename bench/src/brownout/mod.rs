//! What a redis that is written answers before, during and after its move, in each tenth of a second.
//!
//! One client keeps it as busy as it gets, with writes all over its values. What it answers while rounds go on, and in the first
//! second after the thaw, is told as a share of what it answered before.

mod figures;
mod writer;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use fastmig_tests::apps::container::{Container, Setup};
use fastmig_tests::apps::migrating;
use fastmig_tests::apps::peer::Peer;

use crate::hosts;
use figures::{Figures, Moments};
use writer::Writing;

const IMAGE: &str = "redis";
const PORT: u16 = 6379;
const UP_LIMIT: Duration = Duration::from_secs(30);
/// From the first writes to what counts as usual, how long that is looked at, and how long what comes after.
const WARM: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(6);

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// MiB of values
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Where brownout.svg and brownout.json go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Further arguments of `fastmig migrate`, after `--`
    #[arg(last = true)]
    migrate: Vec<String>,
}

/// Measures once, prints the shares, and writes a chart and its numbers.
///
/// # Errors
/// When the hosts cannot be made, redis does not move, or the files cannot be written.
pub fn run(options: &Options) -> Result<()> {
    let [a, b] = hosts::up(&[IMAGE])?;
    let setup = Setup::of(IMAGE).running([
        "redis-server",
        "--save",
        "",
        "--protected-mode",
        "no",
        "--enable-debug-command",
        "yes",
    ]);
    let source = Container::run(&a, "brownout-1", &setup)?;
    let destination = Container::run(&b, "brownout-2", &setup.clone().in_standby())?;
    let peers = [Peer::new(&a, PORT, &a)?, Peer::new(&b, PORT, &a)?];
    peers[0].wait_until_up(UP_LIMIT)?;
    writer::fill(&peers[0], options.mib)?;
    let writing = Writing::start(peers, options.mib);
    sleep(WARM + BEFORE);
    let begun = writing.now();
    let asked = Instant::now();
    let further: Vec<&str> = options.migrate.iter().map(String::as_str).collect();
    let report = migrating::migrate(&source, &destination, &further)?;
    let took = asked.elapsed();
    sleep(AFTER);
    let answers = writing.stop()?;
    destination.remove()?;
    source.remove()?;
    let frozen = Duration::from_millis(report["frozen_ms"].as_u64().context("no freeze")?);
    let moments = Moments { begun, frozen: begun + took.saturating_sub(frozen), thawed: answers.thawed };
    let figures = Figures::of(&answers.tenths, &moments).context("redis answered nothing before its move")?;
    println!("{figures}");
    figures.write(&options.out, &answers.tenths, &moments, &report)
}
