//! An application that writes faster than the link carries: what is asked for happens, and the freeze is as long as was foretold.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::{error_of, hosts};
use crate::apps::memory::Pair;
use crate::apps::migrating::{command, migrate};
use crate::framework::{Case, Ctx};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case { name: "what outruns the link stays when asked to", run: |ctx| over_slow_link(ctx, stays).into() },
    Case {
        name: "what outruns the link is stopped for as long as was foretold",
        run: |ctx| over_slow_link(ctx, forced).into(),
    },
    Case {
        name: "what outruns the link is slowed down until it fits",
        run: |ctx| over_slow_link(ctx, slowed).into(),
    },
];

/// MiB each second that go over the link; more is written.
const LINK: u32 = 110;
const PROGRAM: &[&str] = &["tick", "--mib", "256", "--writes", "200", "--threads", "2"];
/// How far the foretold freeze may be from the real one.
const NEAR: f64 = 0.3;

fn over_slow_link(ctx: &Ctx, go: fn(&mut Pair) -> Result<()>) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, PROGRAM)?;
    let life = pair.program().life()?;
    pair.program().check().context("before")?;
    a.limit_link(LINK)?;
    let gone = go(&mut pair);
    a.free_link()?;
    gone?;
    pair.require_alive(&life)?;
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

/// Not verified: that would be a part of the freeze.
fn asked(on_timeout: &str) -> [&str; 4] {
    ["--strategy", "pre-copy", "--on-timeout", on_timeout]
}

fn stays(pair: &mut Pair) -> Result<()> {
    let [source, destination] = pair.containers();
    let output = command(source, destination, &asked("abort")).output()?;
    ensure!(!output.status.success(), "it moved: {}", output.out());
    let said = error_of(&output.out())?;
    println!("    abort: {said}");
    ensure!(
        said.contains("MiB/s") && said.contains("--on-timeout throttle"),
        "it says something else: {said}"
    );
    ensure!(said.matches("runs on here").count() == 1, "it says where it is, once: {said}");
    source.require("running")?;
    destination.require("standby")?;
    Ok(())
}

fn forced(pair: &mut Pair) -> Result<()> {
    let report = moved(pair, "force")?;
    ensure!(report["rounds_end"] == "forced", "it fitted after all: {report}");
    // The machine may have been busy with something else just then: once more, from the other host.
    if let Err(error) = as_foretold(&report) {
        println!("    {error:#}; once more");
        return as_foretold(&moved(pair, "force")?);
    }
    Ok(())
}

fn slowed(pair: &mut Pair) -> Result<()> {
    let report = moved(pair, "throttle")?;
    let throttled = report["throttled"].as_u64().context("it was not slowed down")?;
    println!("    slowed down by {throttled} %");
    ensure!((20..95).contains(&throttled), "it was slowed down by {throttled} %");
    ensure!(report["rounds_end"] == "converged", "it did not fit: {report}");
    as_written(pair)
}

/// It writes as fast as before when it has moved, within a half.
fn as_written(pair: &Pair) -> Result<()> {
    let written = || pair.program().ask("stat")?["written"].as_u64().context("nothing is written");
    let before = written()?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    let rate = (written()? - before) >> 20;
    ensure!(rate >= 100, "it writes {rate} MiB/s where it has moved");
    Ok(())
}

fn moved(pair: &mut Pair, on_timeout: &str) -> Result<Value> {
    let [source, destination] = pair.containers();
    let report = migrate(source, destination, &asked(on_timeout))?;
    pair.has_moved();
    println!(
        "    {on_timeout}: frozen for {} ms, {} foretold; {} rounds, then {} bytes",
        report["frozen_ms"],
        report["predicted_freeze_ms"],
        report["rounds"].as_array().map_or(0, Vec::len),
        report["last_round_bytes"],
    );
    Ok(report)
}

fn as_foretold(report: &Value) -> Result<()> {
    let milliseconds = |field: &str| report[field].as_f64().with_context(|| format!("no {field}: {report}"));
    let (frozen, foretold) = (milliseconds("frozen_ms")?, milliseconds("predicted_freeze_ms")?);
    ensure!(
        (frozen - foretold).abs() <= frozen * NEAR,
        "frozen for {frozen} ms, {foretold} were foretold: {report}"
    );
    Ok(())
}
