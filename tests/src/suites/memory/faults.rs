//! Whatever breaks while memory travels: one copy lives with all of its memory, what tracked it leaves nothing behind, and the
//! next try succeeds.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use super::snapshot::Snapshot;
use super::stage::{error_of, hosts};
use crate::apps::container::Container;
use crate::apps::memory::{Pair, MIGRATE};
use crate::apps::migrating::{command, logs};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::faults::{state_of, ACCEPT, DROP, LIMIT_MEMORY, REJECT};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case { name: "the source's daemon, which tracks, is killed", run: |ctx| table(ctx, SOURCE_DIES).into() },
    Case { name: "the source's daemon is killed at any moment", run: |ctx| at_any_moment(ctx).into() },
    Case {
        name: "the destination's daemon, which fills, is killed",
        run: |ctx| table(ctx, DESTINATION_DIES).into(),
    },
    Case { name: "CRIU is killed while memory travels", run: |ctx| table(ctx, CRIU_DIES).into() },
    Case { name: "the link is cut while memory travels", run: |ctx| table(ctx, CUT).into() },
    Case { name: "the link falls silent while memory travels", run: |ctx| table(ctx, SILENT).into() },
    Case {
        name: "the destination's container may not hold the memory",
        run: |ctx| table(ctx, NO_MEMORY).into(),
    },
];

const PROGRAM: &[&str] = &["tick", "--mib", "48", "--processes", "2", "--writes", "20"];

const STOP_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(120);
const SETTLED_LIMIT: Duration = Duration::from_secs(60);
/// Longer than a host that says nothing is listened to.
const SILENCE: Duration = Duration::from_secs(15);
/// How soon an end that waits notices that its CRIU is gone, and then some.
const NOTICED: Duration = Duration::from_millis(500);
/// Both ends have heard of it before anybody comes back.
const HEARD: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The daemon that has stopped is killed, and started again.
    Daemon,
    /// The CRIU of this side.
    Criu(Side),
    /// Both ends hear of it at once.
    Cut,
    /// Packets are lost from then on.
    Silent,
    /// The container that waits may hold no more than it does.
    Memory,
}

/// Where a daemon stops, and what happens then. Before the decision, all of it: the application stays.
type Cell = (Side, &'static str, Fault);

const SOURCE_DIES: &[Cell] = &[
    (Side::Source, "rounds", Fault::Daemon),
    (Side::Source, "round-1", Fault::Daemon),
    (Side::Source, "round-2", Fault::Daemon),
    (Side::Source, "rounds-done", Fault::Daemon),
    (Side::Source, "last-round", Fault::Daemon),
    (Side::Source, "last-round-done", Fault::Daemon),
    (Side::Source, "dump-done", Fault::Daemon),
    (Side::Source, "verify", Fault::Daemon),
];
const DESTINATION_DIES: &[Cell] = &[
    (Side::Destination, "rounds", Fault::Daemon),
    (Side::Destination, "rounds-done", Fault::Daemon),
    (Side::Destination, "last-round", Fault::Daemon),
    (Side::Destination, "last-round-done", Fault::Daemon),
];
const CRIU_DIES: &[Cell] = &[
    (Side::Source, "round-1", Fault::Criu(Side::Source)),
    (Side::Source, "round-1", Fault::Criu(Side::Destination)),
    (Side::Source, "round-2", Fault::Criu(Side::Source)),
    (Side::Source, "round-2", Fault::Criu(Side::Destination)),
    (Side::Source, "rounds-done", Fault::Criu(Side::Source)),
    (Side::Source, "rounds-done", Fault::Criu(Side::Destination)),
    (Side::Source, "last-round", Fault::Criu(Side::Source)),
    (Side::Source, "last-round", Fault::Criu(Side::Destination)),
    (Side::Destination, "last-round-done", Fault::Criu(Side::Destination)),
];
/// What befalls a CRIU there is noticed before the application stops.
const BEFORE_THE_FREEZE: &[&str] = &["round-1", "round-2", "rounds-done"];
const CUT: &[Cell] = &[
    (Side::Source, "round-1", Fault::Cut),
    (Side::Destination, "rounds", Fault::Cut),
    (Side::Source, "round-2", Fault::Cut),
    (Side::Source, "last-round-done", Fault::Cut),
];
const SILENT: &[Cell] = &[(Side::Source, "round-1", Fault::Silent)];
const NO_MEMORY: &[Cell] = &[(Side::Destination, "rounds", Fault::Memory)];

fn table(ctx: &Ctx, cells: &[Cell]) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    for cell in cells {
        let begun = Instant::now();
        let outcome = play(&a, &b, *cell);
        let (side, point, fault) = cell;
        println!("    {side:?} at {point}, {fault:?}: {:.1} s", begun.elapsed().as_secs_f32());
        outcome.with_context(|| format!("{cell:?}"))?;
    }
    Ok(())
}

/// Where no point has a name: in the middle of a scan, of an injection, of a plan.
fn at_any_moment(ctx: &Ctx) -> Result<()> {
    const TIMES: u32 = 6;
    const STEP: Duration = Duration::from_millis(37);
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, PROGRAM)?;
    let life = pair.program().life()?;
    let before = Snapshot::of(&a)?;
    let mut died = 0;
    for time in 1..=TIMES {
        let [source, destination] = pair.containers();
        let migration = command(source, destination, MIGRATE).spawn()?;
        sleep(STEP * time);
        a.kill_fastmigd()?;
        sleep(HEARD);
        a.start_fastmigd()?;
        let output = migration.wait(END_LIMIT).context("fastmig migrate does not end")?;
        died += u32::from(!output.status.success());
        let lives = |end: &Container| {
            end.operate("status", &[])
                .is_ok_and(|status| status["application"] == "running" && status["migration"].is_null())
        };
        let settled = || {
            let [here, there] = pair.containers().map(lives);
            here != there
        };
        wait_until(SETTLED_LIMIT, settled).context("it is not clear where the application is")?;
        if !lives(pair.containers()[0]) {
            // It had been decided.
            pair.has_moved();
            pair.require_alive(&life)?;
            pair.migrate().context("the way back")?;
            continue;
        }
        pair.require_alive(&life)?;
        before.require_same(&Snapshot::of(&a)?).context("what tracking left behind")?;
    }
    println!("    {died} of {TIMES} migrations died");
    ensure!(died > 0, "nothing was killed in time");
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

fn play(a: &Arc<Host>, b: &Arc<Host>, cell: Cell) -> Result<()> {
    let mut pair = Pair::start(a, b, PROGRAM)?;
    let life = pair.program().life()?;
    pair.program().check().context("before")?;
    let before = Snapshot::of(a)?;
    let told = |pair: &Pair| logs(pair.containers()[0], pair.containers()[1]);
    strike(&pair, cell).with_context(|| told(&pair))?;
    stays(&pair).with_context(|| told(&pair))?;
    pair.require_alive(&life)?;
    before.require_same(&Snapshot::of(a)?).context("what tracking left behind")?;
    pair.migrate().context("the next try")?;
    pair.remove()?;
    nothing_is_left(a)?;
    nothing_is_left(b)
}

/// A migration, and what befalls it.
fn strike(pair: &Pair, (side, point, fault): Cell) -> Result<()> {
    let [source, destination] = pair.containers();
    let stopped = if side == Side::Source { &source.host } else { &destination.host };
    let role = if side == Side::Source { "source" } else { "destination" };
    stopped.stop_fastmigd()?;
    stopped.start_fastmigd_with(&[("FASTMIGD_STOP_AT", &format!("{role}:{point}"))])?;
    let migration = command(source, destination, MIGRATE).spawn()?;
    let pid = stopped.fastmigd_pid()?.to_string();
    wait_until(STOP_LIMIT, || state_of(stopped, &pid) == Some('T'))
        .with_context(|| format!("the migration never came to {role}:{point}"))?;
    inflict(pair, fault)?;
    if matches!(fault, Fault::Criu(_)) {
        sleep(NOTICED);
    }
    if fault == Fault::Daemon {
        stopped.kill_fastmigd()?;
    } else {
        stopped.cmd(["kill", "-CONT", &pid]).ok()?;
    }
    match fault {
        Fault::Daemon | Fault::Cut => sleep(HEARD),
        Fault::Silent => sleep(SILENCE),
        Fault::Criu(_) | Fault::Memory => {}
    }
    if matches!(fault, Fault::Cut | Fault::Silent) {
        relieve(pair)?;
    }
    if fault == Fault::Daemon {
        stopped.start_fastmigd()?;
    }
    let output = migration.wait(END_LIMIT).context("fastmig migrate does not end")?;
    ensure!(!output.status.success(), "it moved: {}", output.out());
    // A daemon that was killed has not answered.
    let said = error_of(&output.out()).unwrap_or_else(|_| output.err());
    println!("      {}", said.trim());
    if matches!(fault, Fault::Criu(_)) && BEFORE_THE_FREEZE.contains(&point) {
        ensure!(
            said.contains("CRIU") && (said.contains("killed") || said.contains("ended")),
            "the reason is not told: {said}"
        );
        let frozen = latest(&source.host)?["frozen_ms"].clone();
        ensure!(
            frozen.is_null(),
            "it was stopped for {frozen} ms though there was nobody to dump or restore it"
        );
    }
    if fault == Fault::Memory {
        limit_memory(pair, "none")?;
        ensure!(said.contains("memory") && said.contains("MiB"), "the reason is not told: {said}");
    }
    if fault != Fault::Daemon {
        stopped.stop_fastmigd()?;
        stopped.start_fastmigd()?;
    }
    Ok(())
}

/// What its daemon reports of the latest migration.
fn latest(host: &Host) -> Result<Value> {
    let told: Value = serde_json::from_str(&host.fastmigd_get("/v1/migrations")?)?;
    told["migrations"].as_array().and_then(|all| all.last()).cloned().context("no migration is reported")
}

fn inflict(pair: &Pair, fault: Fault) -> Result<()> {
    let [source, destination] = pair.containers();
    let on_both = |script: &str| {
        [source, destination].into_iter().try_for_each(|end| end.host.sh(script).ok().map(drop))
    };
    match fault {
        Fault::Daemon => Ok(()),
        Fault::Criu(Side::Source) => source.host.kill_criu(),
        Fault::Criu(Side::Destination) => destination.host.kill_criu(),
        Fault::Cut => on_both(REJECT),
        Fault::Silent => source.host.sh(DROP).ok().map(drop),
        Fault::Memory => limit_memory(pair, "tight"),
    }
}

fn relieve(pair: &Pair) -> Result<()> {
    pair.containers().into_iter().try_for_each(|end| end.host.sh(ACCEPT).ok().map(drop))
}

fn limit_memory(pair: &Pair, limit: &str) -> Result<()> {
    let end = pair.containers()[1];
    let pid = end.status()?.pid.to_string();
    end.host.cmd(["sh", "-ec", LIMIT_MEMORY, "sh", &pid, limit]).ok().map(drop)
}

/// It is clear that it runs where it was, and nowhere else.
fn stays(pair: &Pair) -> Result<()> {
    let [source, destination] = pair.containers();
    let stands = |end: &Container, wanted: &str| {
        let status = end.operate("status", &[]);
        status.is_ok_and(|status| status["application"] == wanted && status["migration"].is_null())
    };
    let settled = || stands(source, "running") && stands(destination, "standby");
    if wait_until(SETTLED_LIMIT, settled).is_err() {
        let told =
            [source, destination].map(|end| end.operate("status", &[]).map(|status| status.to_string()));
        bail!("it is not clear where the application is: {told:?}");
    }
    Ok(())
}
