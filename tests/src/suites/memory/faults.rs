//! Whatever breaks while memory travels: one copy lives with all of its memory, what tracked it leaves nothing behind, and the
//! next try succeeds.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use super::snapshot::Snapshot;
use super::stage::{error_of, hosts};
use crate::apps::memory::{Pair, MIGRATE};
use crate::apps::migrating::{command, logs};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::faults::{state_of, ACCEPT, DROP, LIMIT_MEMORY, REJECT};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case { name: "the source's daemon, which tracks, is killed", run: |ctx| table(ctx, SOURCE_DIES).into() },
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
];
const DESTINATION_DIES: &[Cell] = &[
    (Side::Destination, "rounds", Fault::Daemon),
    (Side::Destination, "rounds-done", Fault::Daemon),
    (Side::Destination, "last-round", Fault::Daemon),
    (Side::Destination, "last-round-done", Fault::Daemon),
];
const CRIU_DIES: &[Cell] = &[
    (Side::Source, "round-2", Fault::Criu(Side::Source)),
    (Side::Source, "round-2", Fault::Criu(Side::Destination)),
    (Side::Source, "last-round", Fault::Criu(Side::Source)),
    (Side::Source, "last-round", Fault::Criu(Side::Destination)),
    (Side::Destination, "last-round-done", Fault::Criu(Side::Destination)),
];
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

fn inflict(pair: &Pair, fault: Fault) -> Result<()> {
    let [source, destination] = pair.containers();
    let on_both = |script: &str| {
        [source, destination].into_iter().try_for_each(|end| end.host.sh(script).ok().map(drop))
    };
    match fault {
        Fault::Daemon => Ok(()),
        Fault::Criu(Side::Source) => kill_criu(&source.host),
        Fault::Criu(Side::Destination) => kill_criu(&destination.host),
        Fault::Cut => on_both(REJECT),
        Fault::Silent => source.host.sh(DROP).ok().map(drop),
        Fault::Memory => limit_memory(pair, "tight"),
    }
}

fn relieve(pair: &Pair) -> Result<()> {
    pair.containers().into_iter().try_for_each(|end| end.host.sh(ACCEPT).ok().map(drop))
}

/// Those that wait inside containers: their loader's path is ours.
const KILL_CRIU: &str = "killed=1
for dir in /proc/[0-9]*; do
  if tr '\\0' ' ' <$dir/cmdline 2>/dev/null | grep -q '^/dev/.fastmig/criu/'; then
    kill -9 ${dir#/proc/} && killed=0
  fi
done
exit $killed";

fn kill_criu(host: &Host) -> Result<()> {
    host.sh(KILL_CRIU).ok().map(drop).context("no CRIU was there to be killed")
}

fn limit_memory(pair: &Pair, limit: &str) -> Result<()> {
    let end = pair.containers()[1];
    let pid = end.status()?.pid.to_string();
    end.host.cmd(["sh", "-ec", LIMIT_MEMORY, "sh", &pid, limit]).ok().map(drop)
}

/// It is clear that it runs where it was, and nowhere else.
fn stays(pair: &Pair) -> Result<()> {
    let [source, destination] = pair.containers();
    let stands = |end: &crate::apps::container::Container, wanted: &str| {
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
