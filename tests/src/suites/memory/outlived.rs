//! Daemons die while memory follows a program, and it goes on: whoever brings the memory is a process of its own. Only when that one
//! is killed the program ends.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::following::{POST_COPY, SLOW};
use super::lost::{stands, states};
use super::stage::{hosts, until};
use crate::apps::memory::Pair;
use crate::apps::migrating;
use crate::framework::process::wait_until;
use crate::framework::{Background, Case, Ctx, Host};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "memory follows though the destination's daemon is killed and starts again",
        run: |ctx| at_moments(ctx).into(),
    },
    Case {
        name: "memory follows though the destination's daemon is killed for good",
        run: |ctx| for_good(ctx).into(),
    },
    Case { name: "memory follows though both daemons are killed", run: |ctx| both(ctx).into() },
    Case {
        name: "a daemon that is stopped leaves memory that follows alone",
        run: |ctx| stopped(ctx).into(),
    },
    Case {
        name: "a program ends when whoever fetches its memory is killed",
        run: |ctx| fetcher_dies(ctx).into(),
    },
];

const PROGRAM: &[&str] = &["tick", "--mib", "64", "--processes", "2", "--writes", "5"];
const AWAY: Duration = Duration::from_secs(1);
const END: Duration = Duration::from_secs(120);

/// A program that has moved, with a link so slow that its memory has not.
struct Scene {
    a: Arc<Host>,
    b: Arc<Host>,
    pair: Pair,
    life: Value,
    migration: Background,
    pid: String,
}

impl Scene {
    /// The destination's daemon stands still at a point.
    fn at(ctx: &Ctx, point: &str) -> Result<Self> {
        let (a, b) = hosts(ctx)?;
        let pair = Pair::start(&a, &b, PROGRAM)?;
        let life = pair.program().life()?;
        pair.program().check().context("before the move")?;
        a.limit_link(SLOW)?;
        let begun = until(pair.containers(), point, &[POST_COPY, &["--compression", "none"]].concat());
        let (migration, pid) = begun.inspect_err(|_| drop(a.free_link()))?;
        Ok(Self { a, b, pair, life, migration, pid })
    }

    fn go_on(&self) -> Result<()> {
        self.b.cmd(["kill", "-CONT", &self.pid]).ok().map(drop)
    }

    fn told(&self) -> String {
        let [source, destination] = self.pair.containers();
        format!("{}\n{}", states(&self.pair), migrating::logs(source, destination))
    }

    fn has_left(&self) -> Result<()> {
        let source = self.pair.containers()[0];
        wait_until(END, || stands(source, "standby")).context("the source does not let go")
    }

    /// It runs at the destination with all of its memory, and both hosts say so; so does whoever asked for the move, unless he
    /// asked a daemon that has died.
    fn moved(mut self, is_answered: bool) -> Result<()> {
        let checked = self.runs_there().with_context(|| self.told());
        self.a.free_link()?;
        checked?;
        let output = self.migration.wait(END).context("fastmig migrate does not end")?;
        let said = format!("{}{}", output.out(), output.err());
        ensure!(output.status.success() || !is_answered, "it did not move: {said}");
        self.pair.remove()?;
        nothing_is_left(&self.a)?;
        nothing_is_left(&self.b)
    }

    fn runs_there(&mut self) -> Result<()> {
        let destination = self.pair.containers()[1];
        wait_until(END, || stands(destination, "running")).context("it does not run there")?;
        self.has_left()?;
        let told = latest(&self.b)?;
        ensure!(told["outcome"] == "moved", "the end is not told: {told}");
        ensure!(told["owed_bytes"].as_u64() > Some(0), "nothing followed: {told}");
        self.pair.has_moved();
        self.pair.require_alive(&self.life).map(drop)
    }
}

/// What a host's daemon reports of the latest migration.
fn latest(host: &Host) -> Result<Value> {
    let told: Value = serde_json::from_str(&host.fastmigd_get("/v1/migrations")?)?;
    told["migrations"].as_array().and_then(|all| all.last()).cloned().context("no migration is reported")
}

fn at_moments(ctx: &Ctx) -> Result<()> {
    // Decided and not running yet, running, and in the middle of it.
    for (point, later) in [("committed", 0), ("released", 0), ("fill", 0), ("fill", 300), ("fill", 1500)] {
        let scene = Scene::at(ctx, point)?;
        if later > 0 {
            scene.go_on()?;
            sleep(Duration::from_millis(later));
        }
        scene.b.kill_fastmigd()?;
        sleep(AWAY);
        scene.b.start_fastmigd()?;
        println!("    killed at {point} + {later} ms");
        scene.moved(true).with_context(|| format!("killed at {point} + {later} ms"))?;
    }
    Ok(())
}

/// The program has all of its memory, and the source lets go, with nobody there to ask.
fn for_good(ctx: &Ctx) -> Result<()> {
    let scene = Scene::at(ctx, "fill")?;
    scene.b.kill_fastmigd()?;
    let left = scene.has_left().with_context(|| scene.told());
    scene.b.start_fastmigd()?;
    left?;
    scene.moved(true)
}

fn both(ctx: &Ctx) -> Result<()> {
    let scene = Scene::at(ctx, "fill")?;
    scene.b.kill_fastmigd()?;
    scene.a.kill_fastmigd()?;
    sleep(AWAY);
    scene.a.start_fastmigd()?;
    sleep(AWAY);
    scene.b.start_fastmigd()?;
    scene.moved(false)
}

fn stopped(ctx: &Ctx) -> Result<()> {
    let scene = Scene::at(ctx, "fill")?;
    scene.go_on()?;
    scene.b.stop_fastmigd()?;
    scene.b.start_fastmigd()?;
    scene.moved(true)
}

/// How the process that fetches memory was started.
const FETCHER: &str = "/proc/self/exe fill-memory ";

fn fetcher_dies(ctx: &Ctx) -> Result<()> {
    let scene = Scene::at(ctx, "fill")?;
    scene.go_on()?;
    let killed = scene.b.kill_started_as(FETCHER);
    let ended = killed.and_then(|_| it_ends(&scene)).with_context(|| scene.told());
    scene.a.free_link()?;
    ended?;
    scene.b.stop_fastmigd()?;
    scene.b.start_fastmigd()?;
    scene.pair.remove()?;
    nothing_is_left(&scene.a)?;
    nothing_is_left(&scene.b)
}

fn it_ends(scene: &Scene) -> Result<()> {
    let destination = scene.pair.containers()[1];
    let ended = || stands(destination, "standby") || stands(destination, "ended");
    wait_until(END, ended).context("it does not end")?;
    scene.has_left()?;
    ensure!(!scene.pair.program().is_up(), "it still answers where it was");
    let told = latest(&scene.b)?;
    let reason = told["reason"].as_str().unwrap_or_default();
    ensure!(told["outcome"] == "lost" && reason.contains("was killed"), "the reason is not told: {told}");
    Ok(())
}
