//! Memory that follows a program which has moved already: all of it, or what rounds have left.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::{hosts, tell, until};
use crate::apps::container::Container;
use crate::apps::memory::{Conversation, Moved, Pair, Program};
use crate::apps::migrating;
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host, Output};
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
    Case {
        name: "whoever talks to a program hears at once that it has moved, though its memory follows",
        run: |ctx| heard(ctx).into(),
    },
];

pub(super) const POST_COPY: &[&str] = &["--strategy", "post-copy"];
const HYBRID: &[&str] = &["--strategy", "hybrid"];

/// So slow that there is something to be cut, in MiB each second.
pub(super) const SLOW: u32 = 16;
/// Longer than either side waits for the other before it makes the connections anew.
const CUT: Duration = Duration::from_secs(14);
const SOON: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_secs(2);

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

/// Connections are not kept here: who had one makes another.
fn heard(ctx: &Ctx) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let words = ["tick", "--mib", "128"];
    let mut pair = Pair::start(&a, &b, &words)?;
    let mut talk = pair.program().talk()?;
    talk.ask("stat")?;
    a.limit_link(SLOW)?;
    let moved = pair.migrate_by(|source, destination| hear(source, destination, &mut talk));
    a.free_link()?;
    let moved = moved?;
    let served = served(&moved)?;
    ensure!(served > AT_ONCE * 2, "its memory was there too soon, after {served:?}: {}", moved.report);
    tell(&words, &moved);
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

fn hear(source: &Container, destination: &Container, talk: &mut Conversation) -> Result<Value> {
    let options = [POST_COPY, &["--compression", "none"]].concat();
    let migration = migrating::command(source, destination, &options).spawn()?;
    let there = Program::on(&destination.host)?;
    wait_until(SOON, || there.is_up()).context("it does not come up where it moves")?;
    let begun = Instant::now();
    let answer = talk.ask("stat");
    let within = begun.elapsed();
    ensure!(answer.is_err(), "it answers where it was: {answer:?}");
    ensure!(within < AT_ONCE, "its end was heard of after {within:?}");
    println!("    heard of after {within:?}");
    report(source, destination, &migration.wait(SOON)?)
}

/// How long the source has waited for what it owed to arrive.
fn served(moved: &Moved) -> Result<Duration> {
    let phases = moved.report["phases"].as_array().context("no phases")?;
    let served = phases.iter().find(|phase| phase["phase"] == "serve").context("nothing was served")?;
    Ok(Duration::from_millis(served["ms"].as_u64().unwrap_or_default()))
}

/// What `fastmig migrate` said.
fn report(source: &Container, destination: &Container, output: &Output) -> Result<Value> {
    let said = format!("{}{}", output.out(), output.err());
    ensure!(output.status.success(), "it failed: {said}\n{}", migrating::logs(source, destination));
    let answer: Value = serde_json::from_str(&output.out()).with_context(|| format!("no answer: {said}"))?;
    Ok(answer["report"].clone())
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
    ensure!(served(&moved)? > CUT, "the link was cut too late: {}", moved.report);
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
    report(source, destination, &output)
}
