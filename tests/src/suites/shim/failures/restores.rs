//! Restores that fail half-way.

use anyhow::{ensure, Context, Result};

use super::{clear, log_named_in, refusal, says, PLACE};
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::counter::{counted, start, start_python, went_on};
use crate::suites::shim::stage::{self, Task, FASTMIG, SOON};

const STANDBY: &[&str] = &["--annotation", "fastmig.dev/start=standby"];

/// A file that is open and mapped: CRIU needs it when the processes are half there.
const MAPPED: &str = "import mmap\nf = open('/etc/mapped', 'w+b')\nf.write(b'm' * 8192)\nf.flush()\nm = mmap.mmap(f.fileno(), 8192)";
const MAKE_IT: &str = "head -c 8192 /dev/zero | tr '\\0' m >/etc/mapped";

/// A checkpoint of an application that has gone with its container.
fn source(host: &Host, setup: &str) -> Result<(String, u64)> {
    clear(host)?;
    let task = start_python(host, "source", &[], setup)?;
    let count = counted(&task)?;
    let path = format!("{PLACE}/source");
    task.fastmig("checkpoint", &["--image-path", &path]).ok()?;
    task.wait_for_status("STOPPED")?;
    task.remove()?;
    Ok((path, count))
}

pub(super) fn missing_file(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let (path, count) = source(&host, MAPPED)?;
    let task = start_python(&host, "lacks", STANDBY, "")?;
    for _ in 0..2 {
        let error = refusal(&task.fastmig("restore", &["--image-path", &path]).output()?)?;
        says(&error, &["missing in this container", "etc/mapped"])?;
        host.cmd(["rm", log_named_in(&host, &error)?]).ok()?;
        task.expect_application("standby")?;
        let failure = &task.state()?["last_failure"];
        ensure!(failure["operation"] == "restore" && failure["reason"] == error.as_str(), "{failure}");
        only_the_init_runs(&task)?;
    }
    task.sh(MAKE_IT)?;
    task.fastmig("restore", &["--image-path", &path]).ok()?;
    went_on(&task, count)?;
    task.remove()?;
    host.sh(&format!("rm -rf {PLACE}")).ok()?;
    stage::nothing_is_left(&host)
}

fn only_the_init_runs(task: &Task<'_>) -> Result<()> {
    let pids = task.ctr(&["ps"], &[]).ok()?;
    ensure!(pids.lines().count() == 2, "more than PID 1 is left: {pids}");
    Ok(())
}

/// A session that was opened while an application ran holds a number that another application had.
pub(super) fn taken_pid(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let path = format!("{PLACE}/pids");
    // Its second process has the number after its first one's.
    let children = "import subprocess\nc = [subprocess.Popen(['sleep', '100000']) for _ in range(5)]";
    let source = start_python(&host, "source", &[], children)?;
    let count = counted(&source)?;
    source.fastmig("checkpoint", &["--image-path", &path]).ok()?;
    source.remove()?;

    let task = Task::start_of("python", &host, FASTMIG, &[], "taken", &["sleep", "100000"])?;
    let session = task.ctr(&["exec", "--exec-id", "session"], &["sh", "-c", "echo begun; exec sleep 4711"]);
    let mut session = session.spawn()?;
    session.wait_for_output("begun", SOON)?;
    task.fastmig("standby", &[]).ok()?;
    let error = refusal(&task.fastmig("restore", &["--image-path", &path]).output()?)?;
    says(&error, &["pid 100", "taken", "sleep 4711", "end that process"])?;
    task.expect_application("standby")?;
    task.ctr(&["kill", "-s", "KILL", "--exec-id", "session"], &[]).ok()?;
    ensure!(session.wait(SOON)?.status.code() == Some(137), "the session");
    let mut last = None;
    wait_until(SOON, || {
        last = task.fastmig("restore", &["--image-path", &path]).output().ok();
        last.as_ref().is_some_and(|output| output.status.success())
    })
    .with_context(|| format!("{last:?}"))?;
    went_on(&task, count)?;
    task.remove()?;
    host.sh(&format!("rm -rf {PLACE}")).ok()?;
    stage::nothing_is_left(&host)
}

pub(super) fn at_start(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let (path, count) = source(&host, MAPPED)?;
    let from = format!("fastmig.dev/start=restore={path}");
    let task = start_python(&host, "start", &["--annotation", &from], "")?;
    ensure!(task.status()?.as_deref() == Some("RUNNING"), "{:?}", task.status()?);
    task.expect_application("standby")?;
    says(&task.state()?["last_failure"].to_string(), &["restore", "etc/mapped"])?;
    task.sh(MAKE_IT)?;
    task.fastmig("restore", &["--image-path", &path]).ok()?;
    went_on(&task, count)?;
    task.remove()?;
    let nowhere = ["--annotation", "fastmig.dev/start=restore=/nowhere"];
    let task = start(&host, "nowhere", &nowhere)?;
    task.expect_application("standby")?;
    says(&task.state()?["last_failure"].to_string(), &["/nowhere"])?;
    task.fastmig("run", &[]).ok()?;
    counted(&task)?;
    task.remove()?;
    host.sh(&format!("rm -rf {PLACE} /var/log/fastmig")).ok()?;
    stage::nothing_is_left(&host)
}
