//! Whatever dies or falls silent while memory follows a program: it goes on with all of its memory, or it is ended and says why.
//! Never are there two of it.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::following::{POST_COPY, SLOW};
use super::stage::{hosts, until};
use crate::apps::container::Container;
use crate::apps::memory::Pair;
use crate::apps::migrating;
use crate::framework::process::wait_until;
use crate::framework::{Background, Case, Ctx, Host};
use crate::suites::migration::faults::{ACCEPT, DROP, REJECT};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "memory follows though the source's daemon is killed and starts again",
        run: |ctx| play(ctx, Fault::SourceDies).into(),
    },
    Case { name: "memory follows though its connections break", run: |ctx| play(ctx, Fault::Cut).into() },
    Case {
        name: "a program ends whose memory is lost with its source",
        run: |ctx| play(ctx, Fault::SourceLost).into(),
    },
    Case { name: "a link that breaks as it is decided loses nothing", run: |ctx| undecided(ctx).into() },
];

/// Where the destination stops for the link to break: before the decision, and after.
const DECIDING: &[&str] = &["restore-done", "commit", "committed"];

/// It runs on here or there, as it was decided: nobody decides for the other host and then lacks what that one has.
fn undecided(ctx: &Ctx) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    for point in DECIDING {
        let mut pair = Pair::start(&a, &b, PROGRAM)?;
        let life = pair.program().life()?;
        a.limit_link(SLOW)?;
        let struck = cut_at(&pair, &a, &b, point);
        a.free_link()?;
        let told = |pair: &Pair| migrating::logs(pair.containers()[0], pair.containers()[1]);
        struck.with_context(|| told(&pair))?;
        let [source, destination] = pair.containers();
        let runs = || [source, destination].map(|end| stands(end, "running"));
        let waits = || [source, destination].map(|end| stands(end, "standby"));
        let settled =
            || matches!((runs(), waits()), ([true, false], [false, true]) | ([false, true], [true, false]));
        wait_until(END, settled).with_context(|| format!("{point}: {}\n{}", states(&pair), told(&pair)))?;
        let moved = runs()[1];
        println!("    {point}: it {}", if moved { "has moved" } else { "stays" });
        if moved {
            pair.has_moved();
        }
        pair.require_alive(&life).with_context(|| format!("{point}: {}", told(&pair)))?;
        pair.remove()?;
        nothing_is_left(&a)?;
        nothing_is_left(&b)?;
    }
    Ok(())
}

fn cut_at(pair: &Pair, a: &Arc<Host>, b: &Arc<Host>, point: &str) -> Result<()> {
    let (migration, pid) =
        until(pair.containers(), point, &[POST_COPY, &["--compression", "none"]].concat())?;
    let both = |script: &str| [a, b].into_iter().try_for_each(|host| host.sh(script).ok().map(drop));
    both(REJECT)?;
    b.cmd(["kill", "-CONT", &pid]).ok()?;
    sleep(AWAY);
    both(ACCEPT)?;
    migration.wait(END).context("fastmig migrate does not end")?;
    b.stop_fastmigd()?;
    b.start_fastmigd()
}

const PROGRAM: &[&str] = &["tick", "--mib", "128", "--processes", "2", "--writes", "5"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    SourceDies,
    /// Both ends hear of it.
    Cut,
    /// It says nothing more for longer than the program may wait.
    SourceLost,
}

/// How long a program waits for a source that is lost, in seconds.
const LOST: &str = "3";
const AWAY: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(120);

fn play(ctx: &Ctx, fault: Fault) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, PROGRAM)?;
    let life = pair.program().life()?;
    pair.program().check().context("before the move")?;
    a.limit_link(SLOW)?;
    let struck = strike(&pair, &a, &b, fault);
    a.free_link()?;
    let told = |pair: &Pair| migrating::logs(pair.containers()[0], pair.containers()[1]);
    let said = struck.with_context(|| told(&pair))?;
    let [source, destination] = pair.containers();
    if matches!(fault, Fault::SourceDies | Fault::Cut) {
        wait_until(END, || stands(source, "standby") && stands(destination, "running"))
            .with_context(|| format!("it has not moved: {}\n{}", states(&pair), told(&pair)))?;
        pair.has_moved();
        pair.require_alive(&life).with_context(|| told(&pair))?;
    } else {
        ended(&pair, &said).with_context(|| told(&pair))?;
    }
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

/// What befalls a program that runs at the destination without its memory. What `fastmig migrate` said in the end.
fn strike(pair: &Pair, a: &Arc<Host>, b: &Arc<Host>, fault: Fault) -> Result<String> {
    let destination = pair.containers()[1];
    let options = [POST_COPY, &["--compression", "none", "--post-copy-timeout", LOST]].concat();
    let options = if fault == Fault::SourceLost { &options[..] } else { &options[..4] };
    let (migration, pid) = until(pair.containers(), "fill", options)?;
    let go_on = || b.cmd(["kill", "-CONT", &pid]).ok().map(drop);
    let both = |script: &str| [a, b].into_iter().try_for_each(|host| host.sh(script).ok().map(drop));
    match fault {
        Fault::SourceDies => {
            a.kill_fastmigd()?;
            go_on()?;
            sleep(AWAY);
            a.start_fastmigd()?;
        }
        Fault::Cut => {
            both(REJECT)?;
            go_on()?;
            sleep(AWAY);
            both(ACCEPT)?;
        }
        Fault::SourceLost => {
            both(DROP)?;
            go_on()?;
            let lost = wait_until(SOON, || !stands(destination, "running") && stands(destination, "standby"));
            both(ACCEPT)?;
            lost.context("it is not ended")?;
        }
    }
    let said = finish(migration, fault);
    b.stop_fastmigd()?;
    b.start_fastmigd()?;
    said
}

fn finish(migration: Background, fault: Fault) -> Result<String> {
    let output = migration.wait(END).context("fastmig migrate does not end")?;
    let said = format!("{}{}", output.out(), output.err());
    match fault {
        Fault::Cut => ensure!(output.status.success(), "it failed: {said}"),
        // Whoever asked a daemon that has died hears of the end from the one that comes after.
        Fault::SourceDies => {}
        Fault::SourceLost => ensure!(!output.status.success(), "it moved: {said}"),
    }
    Ok(said)
}

/// Neither runs it, neither waits for the other, and the reason is told.
fn ended(pair: &Pair, said: &str) -> Result<()> {
    let [source, destination] = pair.containers();
    wait_until(END, || stands(source, "standby") && is_over(destination))
        .with_context(|| format!("it is not clear what became of it: {}", states(pair)))?;
    ensure!(!pair.program().is_up(), "it still answers where it was");
    let history = destination.host.cmd(["fastmig", "--json", "history"]).ok()?;
    ensure!(history.contains("lost") && history.contains("memory"), "the reason is not told: {history}");
    ensure!(said.contains("memory") || said.contains("lost"), "the reason is not told: {said}");
    Ok(())
}

fn is_over(destination: &Container) -> bool {
    stands(destination, "standby") || stands(destination, "ended")
}

pub(super) fn stands(end: &Container, wanted: &str) -> bool {
    status(end).is_ok_and(|status| status["application"] == wanted && status["migration"].is_null())
}

fn status(end: &Container) -> Result<Value> {
    end.operate("status", &[])
}

pub(super) fn states(pair: &Pair) -> String {
    let told = pair.containers().map(|end| match status(end) {
        Ok(status) => status.to_string(),
        Err(e) => format!("{e:#}"),
    });
    told.join(" | ")
}
