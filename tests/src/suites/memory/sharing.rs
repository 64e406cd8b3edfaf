//! What a move may cost in memory: pages that processes share by fork stay shared, and the destination holds hardly more at any time
//! than the application does.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::stage::hosts;
use crate::apps::container::Container;
use crate::apps::memory::{held_kib, Pair};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx};
use crate::suites::migration::faults::LIMIT_MEMORY;
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case { name: "what forks share stays shared", run: |ctx| moves_within(ctx, FORKED).into() },
    Case {
        name: "what forks share stays shared, huge pages too",
        run: |ctx| moves_within(ctx, FORKED_HUGE).into(),
    },
    Case {
        name: "a move takes hardly more memory than the application",
        run: |ctx| moves_within(ctx, ALONE).into(),
    },
];

/// They write some of it, and then rest: what is held does not grow by itself.
const FORKED: &[&str] =
    &["tick", "--processes", "8", "--mib", "64", "--forked-after", "--writes", "400", "--at-most", "40"];
const FORKED_HUGE: &[&str] = &[
    "tick",
    "--processes",
    "8",
    "--mib",
    "64",
    "--forked-after",
    "--writes",
    "400",
    "--at-most",
    "40",
    "--huge",
];
const ALONE: &[&str] = &["tick", "--mib", "512", "--writes", "40"];

/// What the processes may hold afterwards, in percent of before, and in KiB more of each for what CRIU leaves different.
const SHARED: u64 = 105;
const OF_EACH: u64 = 256;
/// What the destination's container may hold at any time, in percent of what the application does.
const PEAK: u64 = 115;
const RESTED: Duration = Duration::from_secs(20);

/// There and back, each time into a container that may not hold more.
fn moves_within(ctx: &Ctx, words: &[&str]) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, words)?;
    rest(&pair)?;
    let processes = pair.program().ask("stat")?["processes"].as_u64().context("no processes")?;
    let before = held_kib(&pair.containers()[0].host)?;
    for _ in 0..2 {
        let [source, destination] = pair.containers();
        let held = held_kib(&source.host)?;
        let most = held * PEAK / 100 * 1024;
        limit(destination, &most.to_string())?;
        let moved = pair.migrate()?;
        let [now, left] = pair.containers();
        let peak = peak(now)? / 1024;
        let [then, after] = moved.held_kib;
        println!("    {}: {then} KiB became {after}, {peak} at the most in its container", words.join(" "));
        limit(now, "none")?;
        limit(left, "none")?;
        ensure!(
            after <= before * SHARED / 100 + processes * OF_EACH,
            "{before} KiB became {after}: what was shared is not any more"
        );
    }
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

/// Waits until it has written what it writes; who never rests holds the same all the time.
fn rest(pair: &Pair) -> Result<()> {
    let rests = || pair.program().ask("stat").is_ok_and(|told| told["rests"] != false);
    wait_until(RESTED, rests).context("it does not rest")
}

fn limit(end: &Container, most: &str) -> Result<()> {
    let pid = end.status()?.pid.to_string();
    end.host.cmd(["sh", "-ec", LIMIT_MEMORY, "sh", &pid, most]).ok().map(drop)
}

/// Bytes that a container ever held.
fn peak(end: &Container) -> Result<u64> {
    let pid = end.status()?.pid.to_string();
    end.host.cmd(["sh", "-ec", PEAK_OF, "sh", &pid]).ok()?.trim().parse().context("no number")
}

const PEAK_OF: &str = "
path=$(sed -n 's/^[0-9]*:memory://p' /proc/$1/cgroup)
if test -n \"$path\"; then
  cat /sys/fs/cgroup/memory$path/memory.max_usage_in_bytes
else
  cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$1/cgroup)/memory.peak
fi";
