//! What a redis that is written answers before, during and after its move, in each tenth of a second.
//!
//! One client keeps it as busy as it gets, with writes all over its values. What it answers while rounds go on, and in the first
//! second after the thaw, is told as a share of what it answered before.

mod figures;
mod writer;

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use fastmig_tests::apps::container::{Container, Setup};
use fastmig_tests::apps::migrating;
use fastmig_tests::apps::peer::Peer;
use fastmig_tests::framework::Host;

use crate::bench::Bench;
use crate::figures::Metric;
use figures::{Figures, Moments, TENTH};
use writer::Writing;

const IMAGE: &str = "redis";
const PORT: u16 = 6379;
const UP_LIMIT: Duration = Duration::from_secs(30);
/// From the first writes to what counts as usual, how long that is looked at, and how long what comes after.
const WARM: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(6);

/// MiB of values, in a quick run and in a thorough one.
const MIB: [usize; 2] = [512, 2048];
const STRATEGIES: [&str; 2] = ["pre-copy", "post-copy"];

const USUAL: Metric = Metric::new("usual", "writes/s");
const ROUNDS: Metric = Metric::new("share-during-rounds", "of usual");
const AFTER_THAW: Metric = Metric::new("share-in-first-second", "of usual");

/// Measures; the chart is of the last move by the strategy.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let hosts = bench.hosts(&[IMAGE])?;
    for round in 0..bench.rounds(1, 3) {
        for strategy in STRATEGIES {
            if round == 0 || bench.has_time() {
                measure(bench, &hosts, strategy)?;
            }
        }
    }
    Ok(())
}

fn measure(bench: &mut Bench, [a, b]: &[Arc<Host>; 2], strategy: &str) -> Result<()> {
    let mib = MIB[usize::from(!bench.how.quick)];
    let setup = Setup::of(IMAGE).running([
        "redis-server",
        "--save",
        "",
        "--protected-mode",
        "no",
        "--enable-debug-command",
        "yes",
    ]);
    let source = Container::run(a, "brownout-1", &setup)?;
    let destination = Container::run(b, "brownout-2", &setup.clone().in_standby())?;
    let peers = [Peer::new(a, PORT, a)?, Peer::new(b, PORT, a)?];
    peers[0].wait_until_up(UP_LIMIT)?;
    writer::fill(&peers[0], mib)?;
    let writing = Writing::start(peers, mib);
    sleep(WARM + BEFORE);
    let begun = writing.now();
    let report = migrating::migrate(&source, &destination, &["--strategy", strategy])?;
    sleep(AFTER);
    let answers = writing.stop()?;
    destination.remove()?;
    source.remove()?;
    let frozen = Duration::from_millis(report["frozen_ms"].as_u64().context("no freeze")?);
    // Afterwards memory may follow for a while.
    let frozen = answers.thawed.saturating_sub(frozen);
    let moments = Moments { begun, frozen, thawed: answers.thawed };
    let figures = Figures::of(&answers.tenths, &moments).context("redis answered nothing before its move")?;
    let (work, tool) = (format!("redis{mib}"), format!("fastmig-{strategy}"));
    bench.add(&work, &tool, USUAL, figures.usual / TENTH);
    if let Some(share) = figures.rounds {
        bench.add(&work, &tool, ROUNDS, share);
    }
    bench.add(&work, &tool, AFTER_THAW, figures.after);
    figures.write(&bench.out, strategy, &answers.tenths, &moments, &report)
}
