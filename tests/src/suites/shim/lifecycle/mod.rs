//! Everything that can be done to a container, done to fresh ones and to those that have been somewhere.

mod actions;

use anyhow::{ensure, Context, Result};

use super::counter::{count_of, counted, goes_on, start, went_on};
use super::stage::{self, on_both, Events, Task, SOON};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = on_both![
    "a fresh container goes through every action" => fresh,
    "a container restored in place goes through every action" => restored_in_place,
    "a container restored from another goes through every action" => restored_elsewhere,
    "a container restored at its start goes through every action" => restored_at_start,
    "a container run again after standby goes through every action" => run_again,
    "a container in standby takes what needs no application" => in_standby,
];

/// Where the cases put their checkpoints.
const PLACE: &str = "/var/lib/lifecycle";

/// A container that counts, and what must stay true of it.
struct Life<'a> {
    task: Task<'a>,
    events: &'a Events,
    pid: i32,
    runs: u64,
}

impl<'a> Life<'a> {
    fn of(task: Task<'a>, events: &'a Events) -> Result<Self> {
        let (pid, state) = (task.pid()?, task.state()?);
        let runs = state["runs"].as_u64().context("no runs")?;
        Ok(Self { task, events, pid, runs })
    }

    /// The application's counter, read from outside, for a look from inside would be an action.
    fn count(&self) -> Result<u64> {
        count_of(self.task.host, self.pid)
    }

    /// What no action may change.
    fn check(&self) -> Result<()> {
        goes_on(self.task.host, self.pid)?;
        ensure!(self.task.status()?.as_deref() == Some("RUNNING"), "it is {:?}", self.task.status()?);
        ensure!(self.task.pid()? == self.pid, "PID 1 is another");
        let state = self.task.state()?;
        ensure!(state["application"] == "running" && state["paused"] == false, "{state}");
        ensure!(state["runs"] == self.runs, "the application came up again: {state}");
        let first = self.task.host.read_file(&format!("/proc/{}/comm", self.pid))?;
        ensure!(first == b"fastmig-init\n", "PID 1 is {}", String::from_utf8_lossy(&first));
        let zombies = format!(
            "for p in $(cat /proc/{0}/task/{0}/children); do grep -q '^State:.*Z' /proc/$p/status && cat /proc/$p/comm; done; true",
            self.pid
        );
        let left = || self.task.host.sh(&zombies).ok().is_ok_and(|names| names.is_empty());
        wait_until(SOON, left).context("the init does not reap")
    }
}

/// Makes a container that counts.
type Make = for<'a> fn(&'a Host, id: &str) -> Result<Task<'a>>;

fn every_action(ctx: &Ctx, generation: Generation, make: Make) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let events = Events::record(&host)?;
    host.sh(&format!("rm -rf {PLACE}")).ok()?;
    let life = Life::of(make(&host, "life")?, &events)?;
    life.check().context("before any action")?;
    for (name, action) in actions::ALL {
        action(&life).and_then(|()| life.check()).with_context(|| format!("after {name}"))?;
    }
    drop(life);
    for (signal, code) in [("TERM", 23), ("KILL", 137)] {
        let life = Life::of(make(&host, "life")?, &events)?;
        actions::end(life, signal, code).with_context(|| format!("the end by {signal}"))?;
    }
    drop(events);
    host.sh(&format!("rm -rf {PLACE}")).ok()?;
    stage::nothing_is_left(&host)
}

/// A checkpoint at a new place; the container becomes what `after` says.
fn checkpoint(task: &Task<'_>, after: &str) -> Result<String> {
    let path = format!("{PLACE}/{}", task.id);
    task.host.sh(&format!("rm -rf {path}")).ok()?;
    task.fastmig("checkpoint", &["--image-path", &path, after]).ok()?;
    Ok(path)
}

fn fresh(ctx: &Ctx, generation: Generation) -> Result<()> {
    every_action(ctx, generation, |host, id| {
        let task = start(host, id, &[])?;
        counted(&task)?;
        Ok(task)
    })
}

fn restored_in_place(ctx: &Ctx, generation: Generation) -> Result<()> {
    every_action(ctx, generation, |host, id| {
        let task = start(host, id, &[])?;
        let count = counted(&task)?;
        let path = checkpoint(&task, "--standby")?;
        task.expect_application("standby")?;
        task.fastmig("restore", &["--image-path", &path]).ok()?;
        went_on(&task, count)?;
        Ok(task)
    })
}

/// A source that counted, checkpointed and gone.
fn source(host: &Host) -> Result<(String, u64)> {
    let source = start(host, "source", &[])?;
    let count = counted(&source)?;
    let path = format!("{PLACE}/source");
    host.sh(&format!("rm -rf {path}")).ok()?;
    source.fastmig("checkpoint", &["--image-path", &path]).ok()?;
    source.wait_for_status("STOPPED")?;
    source.remove()?;
    Ok((path, count))
}

fn restored_elsewhere(ctx: &Ctx, generation: Generation) -> Result<()> {
    every_action(ctx, generation, |host, id| {
        let (path, count) = source(host)?;
        let task = start(host, id, &["--annotation", "fastmig.dev/start=standby"])?;
        task.expect_application("standby")?;
        task.fastmig("restore", &["--image-path", &path]).ok()?;
        went_on(&task, count)?;
        Ok(task)
    })
}

fn restored_at_start(ctx: &Ctx, generation: Generation) -> Result<()> {
    every_action(ctx, generation, |host, id| {
        let (path, count) = source(host)?;
        let task = start(host, id, &["--annotation", &format!("fastmig.dev/start=restore={path}")])?;
        went_on(&task, count)?;
        Ok(task)
    })
}

fn run_again(ctx: &Ctx, generation: Generation) -> Result<()> {
    every_action(ctx, generation, |host, id| {
        let task = start(host, id, &[])?;
        counted(&task)?;
        task.fastmig("standby", &[]).ok()?;
        task.expect_application("standby")?;
        task.fastmig("run", &[]).ok()?;
        counted(&task)?;
        Ok(task)
    })
}

fn in_standby(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    for (signal, code) in [("TERM", 143), ("KILL", 137)] {
        let events = Events::record(&host)?;
        let task = start(&host, "idle", &["--annotation", "fastmig.dev/start=standby"])?;
        ensure!(task.status()?.as_deref() == Some("RUNNING"), "{:?}", task.status()?);
        ensure!(task.sh("ls /count 2>&1; true")?.contains("No such file"), "the application ran");
        ensure!(task.exec("exit 6").output()?.status.code() == Some(6), "exec");
        let metrics = task.ctr(&["metrics", "--format", "json"], &[]).ok()?;
        ensure!(metrics.contains("usage"), "{metrics}");
        let twice = task.fastmig("standby", &[]).output()?;
        ensure!(twice.status.success(), "standby twice: {twice:?}");
        task.expect_application("standby")?;
        let mark = events.mark();
        task.ctr(&["kill", "-s", signal], &[]).ok()?;
        let seen = events.until("idle", mark, "/tasks/exit")?;
        ensure!(
            seen.iter().any(|event| event.contains(&format!("exit_status={code}"))),
            "{signal}: {seen:#?}"
        );
        task.remove()?;
    }
    stage::nothing_is_left(&host)
}
