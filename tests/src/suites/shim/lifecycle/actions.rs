//! The actions, each with what it must show.

use std::io::Write;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::{Life, PLACE};
use crate::framework::process::wait_until;
use crate::suites::shim::client;
use crate::suites::shim::stage::SOON;

type Action = fn(&Life<'_>) -> Result<()>;

/// All but the end, in an order that lets each follow a mark of the one before.
pub(super) const ALL: &[(&str, Action)] = &[
    ("exec", exec),
    ("exec with a terminal", exec_on_terminal),
    ("an exec that is killed", exec_killed),
    ("exec of a missing command", exec_missing),
    ("pause and resume", pause),
    ("metrics", metrics),
    ("ps", ps),
    ("a signal", signal),
    ("update", update),
    ("check", check),
    ("checkpoint by the operator", checkpoint),
    ("checkpoint by containerd", checkpoint_by_containerd),
    ("refused deletion", delete),
];

fn exec(life: &Life<'_>) -> Result<()> {
    let mark = life.events.mark();
    let output = life.task.exec_as("e1", "echo out; echo err >&2; exit 5").output()?;
    ensure!(output.status.code() == Some(5), "{output:?}");
    ensure!(output.out() == "out\n" && output.err() == "err\n", "{output:?}");
    let seen = life.events.until(&life.task.id, mark, "/tasks/exit")?;
    let topics: Vec<&str> = seen.iter().filter_map(|event| event.split(' ').next()).collect();
    ensure!(topics == ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"], "{seen:#?}");
    ensure!(
        seen.iter().all(|event| event.contains("\"e1\"")) && seen[2].contains("exit_status=5"),
        "{seen:#?}"
    );
    let input = life.task.exec("read a; echo got $a; exit 0").stdin("in\n").ok()?;
    ensure!(input == "got in\n", "{input}");
    Ok(())
}

fn exec_on_terminal(life: &Life<'_>) -> Result<()> {
    let id = &life.task.id;
    let script = "tty; echo ready; read a; echo got $a; exit 9";
    let run = format!("ctr t exec --tty --exec-id term {id} sh -c '{script}'");
    let mut run = life.task.host.cmd(["script", "-qec", &run, "/dev/null"]).spawn_with_stdin()?;
    let mut keyboard = run.take_stdin().context("no keyboard")?;
    run.wait_for_output("ready", SOON)?;
    keyboard.write_all(b"typed\n")?;
    let output = run.wait(SOON)?;
    let out = output.out();
    ensure!(output.status.code() == Some(9), "{output:?}");
    ensure!(out.contains("/dev/pts/") && out.contains("got typed"), "{out}");
    Ok(())
}

fn exec_killed(life: &Life<'_>) -> Result<()> {
    let run = life.task.exec_as("long", "echo begun; exec sleep 1000");
    let mut run = run.spawn()?;
    run.wait_for_output("begun", SOON)?;
    life.task.ctr(&["kill", "-s", "KILL", "--exec-id", "long"], &[]).ok()?;
    let output = run.wait(SOON)?;
    ensure!(output.status.code() == Some(137), "{output:?}");
    Ok(())
}

fn exec_missing(life: &Life<'_>) -> Result<()> {
    let output = life.task.ctr(&["exec", "--exec-id", "missing"], &["/nope"]).output()?;
    ensure!(output.status.code() == Some(1) && output.err().contains("/nope"), "{output:?}");
    Ok(())
}

fn pause(life: &Life<'_>) -> Result<()> {
    let mark = life.events.mark();
    life.task.ctr(&["pause"], &[]).ok()?;
    ensure!(life.task.status()?.as_deref() == Some("PAUSED"), "{:?}", life.task.status()?);
    let before = life.count()?;
    // Long enough for ten more.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let after = life.count()?;
    ensure!(before == after, "it counts while paused: {before}, {after}");
    life.task.ctr(&["resume"], &[]).ok()?;
    life.events.until(&life.task.id, mark, "/tasks/paused")?;
    life.events.until(&life.task.id, mark, "/tasks/resumed").map(drop)
}

fn metrics(life: &Life<'_>) -> Result<()> {
    let text = life.task.ctr(&["metrics", "--format", "json"], &[]).ok()?;
    let values: Value = serde_json::from_str(&text)?;
    // Version 1 of cgroups, and version 2.
    let first = |pointers: [&str; 2]| pointers.iter().find_map(|pointer| values.pointer(pointer)?.as_u64());
    let memory = first(["/memory/usage/usage", "/memory/usage"]).context("no memory")?;
    let pids = first(["/pids/current", "/pids/current"]).context("no pids")?;
    let cpu = first(["/cpu/usage/total", "/cpu/usage_usec"]).context("no cpu")?;
    ensure!(memory > 100_000 && cpu > 0, "memory {memory}, cpu {cpu}");
    // The init and the application, whose `sleep` comes and goes.
    ensure!((2..=4).contains(&pids), "{pids} processes");
    Ok(())
}

fn ps(life: &Life<'_>) -> Result<()> {
    let pids = life.task.ctr(&["ps"], &[]).ok()?;
    let shows = |pid: &str| pids.lines().any(|line| line.split_whitespace().next() == Some(pid));
    ensure!(shows(&life.pid.to_string()), "PID 1, {}, is not among {pids}", life.pid);
    let children = format!("/proc/{0}/task/{0}/children", life.pid);
    let application = String::from_utf8(life.task.host.read_file(&children)?)?;
    ensure!(shows(application.trim()), "the application, {application}, is not among {pids}");
    Ok(())
}

fn signal(life: &Life<'_>) -> Result<()> {
    let file = format!("/proc/{}/root/signals", life.pid);
    let count = || life.task.host.read_file(&file).map_or(0, |text| text.len());
    let before = count();
    life.task.ctr(&["kill", "-s", "USR1"], &[]).ok()?;
    wait_until(SOON, || count() == before + 5).with_context(|| format!("{before}, then {}", count()))
}

fn update(life: &Life<'_>) -> Result<()> {
    client::update(&life.task, r#"{"memory":{"limit":123731968},"pids":{"limit":77}}"#)?;
    let id = &life.task.id;
    let read = format!(
        "cd /sys/fs/cgroup; cat memory/default/{id}/memory.limit_in_bytes default/{id}/memory.max 2>/dev/null; \
         cat pids/default/{id}/pids.max default/{id}/pids.max 2>/dev/null; true"
    );
    let limits = life.task.host.sh(&read).ok()?;
    ensure!(limits == "123731968\n77\n", "{limits:?}");
    Ok(())
}

fn check(life: &Life<'_>) -> Result<()> {
    let found: Value = serde_json::from_str(&life.task.fastmig("check", &[]).ok()?)?;
    ensure!(found["ok"] == true, "{found}");
    Ok(())
}

fn checkpoint(life: &Life<'_>) -> Result<()> {
    let path = super::checkpoint(&life.task, "--leave-running")?;
    ensure!(life.task.state()?["last_checkpoint"] == path.as_str(), "{}", life.task.state()?);
    life.task.host.cmd(["rm", "-r", &path]).ok().map(drop)
}

/// containerd asks the shim while the task is paused.
fn checkpoint_by_containerd(life: &Life<'_>) -> Result<()> {
    let path = format!("{PLACE}/by-containerd");
    let mark = life.events.mark();
    life.task.ctr(&["pause"], &[]).ok()?;
    client::checkpoint(&life.task, &path)?;
    life.task.ctr(&["resume"], &[]).ok()?;
    let seen = life.events.until(&life.task.id, mark, "/tasks/checkpointed")?;
    ensure!(seen.iter().any(|event| event.contains("by-containerd")), "{seen:#?}");
    life.task.host.sh(&format!("test -s {path}/manifest.json && rm -r {path}")).ok()?;
    let said = life.task.ctr(&["checkpoint"], &[]).ok()?;
    let name =
        said.lines().find(|line| line.starts_with("containerd.io/checkpoint/")).context(said.clone())?;
    life.task.host.cmd(["ctr", "images", "rm", "--sync", name]).ok().map(drop)
}

fn delete(life: &Life<'_>) -> Result<()> {
    let output = life.task.ctr(&["rm"], &[]).output()?;
    ensure!(output.err().contains("must be stopped"), "{output:?}");
    Ok(())
}

/// The last action: it ends by a signal, and is removed.
pub(super) fn end(life: Life<'_>, signal: &str, code: i32) -> Result<()> {
    let mark = life.events.mark();
    life.task.ctr(&["kill", "-s", signal], &[]).ok()?;
    life.task.wait_for_status("STOPPED")?;
    let seen = life.events.until(&life.task.id, mark, "/tasks/exit")?;
    ensure!(seen.last().is_some_and(|event| event.contains(&format!("exit_status={code} "))), "{seen:#?}");
    let state = life.task.state()?;
    ensure!(state["application"] == "ended", "{state}");
    let deleted = life.task.ctr(&["rm"], &[]).output()?;
    ensure!(deleted.err().contains(&format!("exit code {code}")), "{deleted:?}");
    life.events.until(&life.task.id, mark, "/tasks/delete")?;
    let unknown = life.task.fastmig("status", &[]).output()?;
    ensure!(!unknown.status.success(), "FastMig still knows it: {unknown:?}");
    life.task.remove()
}
