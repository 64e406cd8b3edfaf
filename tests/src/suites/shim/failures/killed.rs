//! What a violent end of each part leaves: nothing.

use std::sync::PoisonError;

use anyhow::{ensure, Context, Result};

use super::{as_before, clear, says, PLACE};
use crate::framework::process::wait_until;
use crate::framework::{Background, Ctx, Generation, Host};
use crate::suites::shim::client;
use crate::suites::shim::counter::{counted, start, start_python};
use crate::suites::shim::stage::{self, Events, Task, SOON};

/// Kills the shim that serves the task, as a crash would.
fn kill_shim(task: &Task<'_>) -> Result<()> {
    let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/default/{}", task.id);
    task.host.sh(&format!("kill -KILL $(cat {bundle}/shim.pid)")).ok().map(drop)
}

/// A session that has begun. Its `ctr` may leave its FIFOs, for it cannot ask any more how it ended.
fn session(task: &Task<'_>) -> Result<Background> {
    let options = ["exec", "--fifo-dir", "/tmp/fifos", "--exec-id", "session"];
    let mut running = task.ctr(&options, &["sh", "-c", "echo begun; exec sleep 1000"]).spawn()?;
    running.wait_for_output("begun", SOON)?;
    Ok(running)
}

/// containerd notices and has the rest cleaned up.
fn wait_until_cleaned(task: &Task<'_>) -> Result<()> {
    let gone = || {
        task.status()
            .is_ok_and(|status| status.is_none_or(|status| status == "STOPPED" || status == "UNKNOWN"))
    };
    wait_until(SOON, gone).with_context(|| format!("the task is {:?}", task.status()))
}

pub(super) fn shim(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let events = Events::record(&host)?;
    // Without streams, for a `ctr` that nobody tells of the end leaves their FIFOs.
    for options in [&["--null-io"][..], &["--null-io", "--annotation", "fastmig.dev/start=standby"]] {
        for paused in [false, true] {
            let task = start(&host, "orphan", options)?;
            let pid = task.pid()?;
            let session = session(&task)?;
            if paused {
                task.ctr(&["pause"], &[]).ok()?;
            }
            let mark = events.mark();
            kill_shim(&task)?;
            wait_until_cleaned(&task)?;
            let seen = events.until("orphan", mark, "/tasks/exit")?;
            says(&seen.join("\n"), &["exit_status=137", "/tasks/exit"])?;
            let ended = || {
                host.cmd(["test", "-d", &format!("/proc/{pid}")]).output().is_ok_and(|o| !o.status.success())
            };
            wait_until(SOON, ended).context("the init outlived its shim")?;
            session.wait(SOON).context("its `ctr` waits for ever")?;
            task.remove()?;
        }
    }
    drop(events);
    stage::nothing_is_left(&host)
}

pub(super) fn shim_during_checkpoint(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let task = start_python(&host, "midway", &["--null-io"], "import os\nkept = os.urandom(300 << 20)")?;
    counted(&task)?;
    let path = format!("{PLACE}/midway");
    let writes = format!(
        "for i in $(seq 4000); do ls {path}.*/pages-1.img >/dev/null 2>&1 && exit; sleep 0.002; done; exit 1"
    );
    let answer = std::thread::scope(|scope| {
        // By the shim, as containerd asks it.
        let asked = scope.spawn(|| client::checkpoint(&task, &path));
        host.sh(&writes).ok().context("no checkpoint begins")?;
        kill_shim(&task)?;
        asked.join().ok().context("the client panicked")
    })?;
    ensure!(answer.is_err(), "a killed shim has answered");
    wait_until_cleaned(&task)?;
    ensure!(
        !host.sh("test -e /var/lib/failures/midway/manifest.json").output()?.status.success(),
        "a checkpoint without an end"
    );
    task.remove()?;
    host.sh(&format!("rm -rf {PLACE} /var/log/fastmig")).ok()?;
    stage::nothing_is_left(&host)
}

pub(super) fn containerd(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let before = host.baseline.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let task = start(&host, "survivor", &["--null-io"])?;
    let idle = start(&host, "idle", &["--null-io", "--annotation", "fastmig.dev/start=standby"])?;
    counted(&task)?;
    let pid = task.pid()?;
    host.kill_containerd()?;
    crate::suites::shim::counter::goes_on(&host, pid)?;
    let restarted = host.start_containerd();
    *host.baseline.lock().unwrap_or_else(PoisonError::into_inner) = before;
    restarted?;
    as_before(&task, pid, 1)?;
    idle.expect_application("standby")?;
    idle.fastmig("run", &[]).ok()?;
    counted(&idle)?;
    for task in [&task, &idle] {
        ensure!(task.sh("echo here")? == "here\n", "exec after a restart of containerd");
        task.ctr(&["pause"], &[]).ok()?;
        task.ctr(&["resume"], &[]).ok()?;
    }
    let events = Events::record(&host)?;
    let mark = events.mark();
    task.ctr(&["kill", "-s", "TERM"], &[]).ok()?;
    says(&events.until("survivor", mark, "/tasks/exit")?.join("\n"), &["exit_status=23"])?;
    task.remove()?;
    idle.remove()?;
    // What ends while nobody listens is told later.
    let short = start(&host, "short", &["--null-io"])?;
    let pid = short.pid()?;
    host.kill_containerd()?;
    host.sh(&format!("kill -KILL {pid}")).ok()?;
    let before = host.baseline.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let restarted = host.start_containerd();
    *host.baseline.lock().unwrap_or_else(PoisonError::into_inner) = before;
    restarted?;
    wait_until_cleaned(&short)?;
    short.remove()?;
    drop(events);
    stage::nothing_is_left(&host)
}

pub(super) fn init(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let events = Events::record(&host)?;
    // Without streams, for a `ctr` that nobody tells of the end leaves their FIFOs.
    for options in [&["--null-io"][..], &["--null-io", "--annotation", "fastmig.dev/start=standby"]] {
        for paused in [false, true] {
            init_killed(&host, &events, options, paused)
                .with_context(|| format!("{options:?}, paused: {paused}"))?;
        }
    }
    drop(events);
    stage::nothing_is_left(&host)
}

fn init_killed(host: &Host, events: &Events, options: &[&str], paused: bool) -> Result<()> {
    let task = start(host, "headless", options)?;
    let pid = task.pid()?;
    let session = session(&task)?;
    if paused {
        task.ctr(&["pause"], &[]).ok()?;
    }
    let mark = events.mark();
    host.sh(&format!("kill -KILL {pid}")).ok()?;
    if paused && options.len() == 1 {
        // As under runc: what is frozen ends once it is thawed. In standby nothing is.
        task.ctr(&["resume"], &[]).ok()?;
    }
    task.wait_for_status("STOPPED")?;
    let session = session.wait(SOON)?;
    ensure!(session.status.code() == Some(137), "the session: {session:?}");
    let seen = events.until("headless", mark, "/tasks/exit container_id=\"headless\" id=\"headless\"")?;
    says(&seen.join("\n"), &["id=\"headless\" exit_status=137"])?;
    task.remove()
}
