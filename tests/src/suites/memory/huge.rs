//! Huge pages, which tracking splits: back when the application stays after all.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::hosts;
use crate::apps::memory::{Pair, Program};
use crate::apps::migrating::command;
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[Case {
    name: "huge pages are back, and as fast, when their application stays",
    run: |ctx| back(ctx).into(),
}];

/// Writes split them. The link carries less than is written, so that it is given up after some rounds.
const PROGRAM: &[&str] = &["huge", "--mib", "256", "--writes", "4000"];
const LINK: u32 = 30;
const GIVES_UP: &[&str] =
    &["--strategy", "pre-copy", "--on-timeout", "abort", "--max-rounds", "2", "--max-downtime", "1"];
/// The longest that it may take to give up.
const END_LIMIT: Duration = Duration::from_secs(90);
/// How long they may take to come back.
const LIMIT: Duration = Duration::from_secs(10);
/// How long its speed is looked at.
const WINDOW: Duration = Duration::from_secs(3);
/// What must be there again, of pages and of speed.
const SHARE: f64 = 0.9;

fn back(ctx: &Ctx) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let pair = Pair::start(&a, &b, PROGRAM)?;
    let life = pair.program().life()?;
    sleep(WINDOW);
    let before = Figures::of(pair.program())?;
    ensure!(before.huge_kib > 0.0, "it has no huge pages to begin with");
    a.limit_link(LINK)?;
    let [source, destination] = pair.containers();
    let migration = command(source, destination, GIVES_UP).spawn()?;
    let is_split = || Figures::of(pair.program()).is_ok_and(|now| now.huge_kib < before.huge_kib / 2.0);
    let split = wait_until(END_LIMIT, is_split).context("tracking split no huge page: nothing is tested");
    let given_up = migration.wait(END_LIMIT);
    a.free_link()?;
    split?;
    let given_up = given_up?;
    ensure!(!given_up.status.success(), "it moved: {}", given_up.out());
    sleep(LIMIT - WINDOW);
    sleep(WINDOW);
    let mut after = Figures::of(pair.program())?;
    println!("    {before:?}, and then {after:?}");
    if after.speed < before.speed * SHARE {
        // Something else may have been going on.
        sleep(WINDOW);
        after = Figures::of(pair.program())?;
        println!("    once more: {after:?}");
    }
    ensure!(after.huge_kib >= before.huge_kib * SHARE, "huge pages stay split: {before:?}, then {after:?}");
    ensure!(after.speed >= before.speed * SHARE, "it is slower: {before:?}, then {after:?}");
    pair.require_alive(&life)?;
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

/// What it said.
#[derive(Debug)]
struct Figures {
    huge_kib: f64,
    /// Reads each second, the median of late.
    speed: f64,
}

impl Figures {
    fn of(program: &Program) -> Result<Self> {
        let told = program.ask("stat")?;
        let huge_kib = told["huge_kib"].as_f64().with_context(|| format!("no huge pages in {told}"))?;
        let periods = told["speed"].as_array().context("no speed")?;
        // A tenth of a second each.
        let late = usize::try_from(WINDOW.as_millis() / 100)?;
        let mut speeds: Vec<f64> =
            periods.iter().rev().take(late).filter_map(|period| period[1].as_f64()).collect();
        speeds.sort_by(f64::total_cmp);
        let speed = *speeds
            .get(speeds.len() / 2)
            .with_context(|| format!("no speeds in {}", Value::from(periods.clone())))?;
        Ok(Self { huge_kib, speed })
    }
}
