//! Memory that stays where it is: full, of several sizes, idle and written.

use std::fs;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::{hosts, moves};
use crate::apps::memory::{Pair, MIGRATE};
use crate::apps::migrating;
use crate::framework::{Case, Ctx, Outcome};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case { name: "idle memory moves: 16 MiB", run: |ctx| once(ctx, &["tick", "--mib", "16"]).into() },
    Case { name: "idle memory moves: 128 MiB", run: |ctx| once(ctx, &["tick", "--mib", "128"]).into() },
    Case { name: "idle memory moves: 1 GiB", run: |ctx| once(ctx, &["tick", "--mib", "1024"]).into() },
    Case { name: "memory moves that is written: 16 MiB", run: |ctx| written(ctx, "16").into() },
    Case { name: "memory moves that is written: 128 MiB", run: |ctx| written(ctx, "128").into() },
    Case { name: "memory moves that is written: 1 GiB", run: |ctx| written(ctx, "1024").into() },
    Case { name: "sixteen processes move, each with memory of its own", run: |ctx| sixteen(ctx, &[]).into() },
    Case {
        name: "sixteen processes move, with memory that they inherited",
        run: |ctx| sixteen(ctx, &["--forked-after"]).into(),
    },
    Case {
        name: "memory moves that is written as fast as can be",
        run: |ctx| once(ctx, &["burst", "--mib", "128", "--threads", "2"]).into(),
    },
    Case {
        name: "huge pages move, and are read and written",
        run: |ctx| once(ctx, &["huge", "--mib", "256", "--writes", "200"]).into(),
    },
    Case { name: "memory moves over a slow link", run: |ctx| slowly(ctx).into() },
    Case { name: "hugetlb pages move or are refused", run: hugetlb },
];

/// A slow link, in MiB each second, and what goes over it: random bytes, so that compression saves nothing.
const SLOW: u32 = 50;
const SENT_MIB: u32 = 100;

/// The machine's pages of 2 MiB that are set aside: enough for two hosts with 16 MiB each.
const SET_ASIDE: &str = "/proc/sys/vm/nr_hugepages";
const NEEDED: u32 = 16;

fn once(ctx: &Ctx, words: &[&str]) -> Result<()> {
    moves(ctx, words, 1).map(drop)
}

/// With 100 MiB of writes each second, by several threads.
fn written(ctx: &Ctx, mib: &str) -> Result<()> {
    once(ctx, &["tick", "--mib", mib, "--writes", "100", "--threads", "4"])
}

/// A sixteenth of what they hold is written each second or so.
fn sixteen(ctx: &Ctx, forked: &[&str]) -> Result<()> {
    once(ctx, &[&["tick", "--processes", "16", "--mib", "32", "--writes", "30"], forked].concat())
}

fn slowly(ctx: &Ctx) -> Result<()> {
    let (a, _) = hosts(ctx)?;
    a.limit_link(SLOW)?;
    let moved = moves(ctx, &["tick", "--mib", &SENT_MIB.to_string(), "--writes", "10"], 1);
    a.free_link()?;
    let total = moved?[0].report["total_ms"].as_u64().context("no time in the report")?;
    let least = u64::from(SENT_MIB / SLOW) * 1000 / 2;
    ensure!(total > least, "{SENT_MIB} MiB took {total} ms over {SLOW} MiB/s");
    Ok(())
}

fn hugetlb(ctx: &Ctx) -> Outcome {
    let read = || fs::read_to_string(SET_ASIDE).ok()?.trim().parse::<u32>().ok();
    let Some(before) = read() else { return Outcome::Skipped("the kernel has no hugetlb pages".into()) };
    if let Err(error) = fs::write(SET_ASIDE, (before + NEEDED).to_string()) {
        return Outcome::Skipped(format!("no hugetlb pages can be set aside: {error}"));
    }
    let outcome = match read() {
        Some(now) if now >= before + NEEDED => move_hugetlb(ctx).into(),
        _ => Outcome::Skipped("there is no room for hugetlb pages".into()),
    };
    match fs::write(SET_ASIDE, before.to_string()) {
        Ok(()) => outcome,
        Err(error) => Outcome::Failed(error.into()),
    }
}

/// One of the two, and the program is whole in any case.
fn move_hugetlb(ctx: &Ctx) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, &["huge", "--hugetlb", "--mib", "16"])?;
    let life = pair.program().life()?;
    let [source, destination] = pair.containers();
    let answer = migrating::command(source, destination, MIGRATE).output()?;
    if answer.status.success() {
        println!("    moved");
        pair.has_moved();
    } else {
        let answer: Value = serde_json::from_str(&answer.out()).context("no answer")?;
        println!("    not moved: {}", answer["error"]);
    }
    pair.require_alive(&life)?;
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}
