//! Memory that follows a program which has moved already: all of it, or what rounds have left.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::{hosts, tell, until};
use crate::apps::container::Container;
use crate::apps::memory::{Moved, Pair};
use crate::apps::migrating;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "memory follows a program that has moved",
        run: |ctx| follows(ctx, POST_COPY, &["tick", "--mib", "128"], 1).into(),
    },
    Case {
        name: "a GiB of memory follows, and the freeze does not wait for it",
        run: |ctx| follows(ctx, POST_COPY, &["tick", "--mib", "1024"], 1).into(),
    },
    Case {
        name: "memory follows that is written meanwhile, there and back",
        run: |ctx| {
            follows(ctx, POST_COPY, &["tick", "--mib", "128", "--writes", "100", "--threads", "4"], 2).into()
        },
    },
    Case {
        name: "memory follows processes that inherited it",
        run: |ctx| {
            let words = ["tick", "--mib", "32", "--processes", "4", "--writes", "20", "--forked-after"];
            follows(ctx, POST_COPY, &words, 1).into()
        },
    },
    Case {
        name: "memory that processes share stays shared when the rest follows",
        run: |ctx| shared(ctx).into(),
    },
    Case { name: "memory follows that changes at random", run: |ctx| changing(ctx).into() },
    Case {
        name: "what rounds leave of memory follows",
        run: |ctx| follows(ctx, HYBRID, &["burst", "--mib", "128", "--threads", "2"], 1).into(),
    },
    Case { name: "what rounds that do not end leave follows when asked", run: |ctx| on_timeout(ctx).into() },
    Case { name: "memory that follows is compared when asked", run: |ctx| compared(ctx).into() },
    Case { name: "memory follows though the link is cut for a while", run: |ctx| cut(ctx).into() },
];

pub(super) const POST_COPY: &[&str] = &["--strategy", "post-copy"];
const HYBRID: &[&str] = &["--strategy", "hybrid"];

/// So slow that there is something to be cut, in MiB each second.
pub(super) const SLOW: u32 = 16;
/// Longer than either side waits for the other before it makes the connections anew.
const CUT: Duration = Duration::from_secs(14);
const SOON: Duration = Duration::from_secs(60);

fn follows(ctx: &Ctx, how: &[&str], words: &[&str], times: usize) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, words)?;
    for _ in 0..times {
        let moved = pair.migrate_with(how)?;
        require_followed(&moved)?;
        tell(words, &moved);
    }
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

/// At most a twentieth more.
fn require_shared(moved: &Moved) -> Result<()> {
    let [before, after] = moved.held_kib;
    ensure!(after <= before + before / 20, "{before} KiB were held before, {after} after");
    Ok(())
}

/// Something did, and all of it came.
fn require_followed(moved: &Moved) -> Result<()> {
    let number = |name: &str| moved.report[name].as_u64().unwrap_or_default();
    let (owed, faults) = (number("owed_bytes"), number("owed_faults"));
    ensure!(owed > 0 && !moved.report["filled_ms"].is_null(), "nothing followed: {}", moved.report);
    let within = &moved.report["filled_ms"];
    println!("    {} KiB followed within {within} ms, and were waited for {faults} times", owed / 1024);
    Ok(())
}

/// Nothing of it is written, so what they hold together is what they share.
fn shared(ctx: &Ctx) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let words = ["tick", "--mib", "64", "--processes", "8", "--forked-after"];
    let mut pair = Pair::start(&a, &b, &words)?;
    let moved = pair.migrate_with(POST_COPY)?;
    tell(&words, &moved);
    require_shared(&moved)?;
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

fn changing(ctx: &Ctx) -> Result<()> {
    for seed in ["301", "302", "303", "304", "305", "306"] {
        let words = ["churn", "--seed", seed, "--mib", "256", "--children", "4", "--fork-ms", "50"];
        follows(ctx, POST_COPY, &words, 1).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

fn on_timeout(ctx: &Ctx) -> Result<()> {
    let how =
        ["--strategy", "pre-copy", "--max-rounds", "2", "--max-downtime", "1", "--on-timeout", "post-copy"];
    follows(ctx, &how, &["burst", "--mib", "64", "--threads", "2"], 1)
}

/// All of it comes before it runs, then.
fn compared(ctx: &Ctx) -> Result<()> {
    let words = ["tick", "--mib", "32", "--processes", "4", "--writes", "20", "--forked-after"];
    follows(ctx, &["--strategy", "post-copy", "--verify"], &words, 1)
}

fn cut(ctx: &Ctx) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let words = ["tick", "--mib", "128", "--writes", "5"];
    let mut pair = Pair::start(&a, &b, &words)?;
    a.limit_link(SLOW)?;
    let moved = pair.migrate_by(|source, destination| cut_meanwhile(&a, source, destination));
    a.free_link()?;
    let moved = moved?;
    // The one who would tell how it went was cut off.
    let phases = moved.report["phases"].as_array().context("no phases")?;
    let served = phases.iter().find(|phase| phase["phase"] == "serve").context("nothing was served")?;
    let served = Duration::from_millis(served["ms"].as_u64().unwrap_or_default());
    ensure!(served > CUT, "the link was cut too late: {}", moved.report);
    tell(&words, &moved);
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

/// Cuts the link when the program runs at the destination, and mends it.
fn cut_meanwhile(host: &Host, source: &Container, destination: &Container) -> Result<Value> {
    let options = [POST_COPY, &["--compression", "none"]].concat();
    let (migration, pid) = until([source, destination], "fill", &options)?;
    host.sh("nft -f - <<E\ntable inet cut { chain in { type filter hook input priority 0; policy drop; iif lo accept; }; }\nE")
        .ok()?;
    destination.host.cmd(["kill", "-CONT", &pid]).ok()?;
    sleep(CUT);
    host.sh("nft delete table inet cut").ok()?;
    let output = migration.wait(SOON)?;
    destination.host.stop_fastmigd()?;
    destination.host.start_fastmigd()?;
    let said = format!("{}{}", output.out(), output.err());
    ensure!(output.status.success(), "it failed: {said}\n{}", migrating::logs(source, destination));
    let answer: Value = serde_json::from_str(&output.out()).with_context(|| format!("no answer: {said}"))?;
    Ok(answer["report"].clone())
}
