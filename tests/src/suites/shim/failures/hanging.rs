//! A CRIU that does not come to an end.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::{as_before, clear, nothing_at, refusal, says, Configuration, PLACE};
use crate::framework::process::wait_until;
use crate::framework::{cgroups, Background, Cmd, Ctx, Generation, Host};
use crate::suites::shim::counter::{counted, start_python, went_on};
use crate::suites::shim::stage::{self, Task, SOON};

/// Short for CRIU, shorter for who waits for the container.
const LIMITS: &str = "[limits]\ncriu = 3\nlock = 1\n";

/// The CRIU that runs in this host, of all that may run on this machine.
fn running_criu(host: &Host) -> Option<Pid> {
    let hierarchy = host.state.cgroups.first()?;
    let cgroups = cgroups::tree(&hierarchy.own).into_iter();
    let members = cgroups.map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default());
    let members = members.collect::<Vec<_>>().join("");
    // Its own loader runs it; its command line it changes.
    let is_criu = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("ld-linux")
    };
    members.lines().filter_map(|line| line.parse().ok()).find(is_criu).map(Pid::from_raw)
}

/// Runs a command, and stops its CRIU once `ready` says so, as if it hung.
fn with_stopped_criu(host: &Host, command: &Cmd, ready: impl Fn() -> bool) -> Result<Background> {
    let mut running = command.spawn()?;
    let deadline = Instant::now() + SOON;
    loop {
        // Without a pause: it lives for a tenth of a second.
        if let Some(criu) = running_criu(host).filter(|_| ready()) {
            kill(criu, Signal::SIGSTOP).context("cannot stop CRIU")?;
            return Ok(running);
        }
        if !running.is_running() || Instant::now() > deadline {
            bail!("no CRIU could be stopped: {:?}", running.wait(SOON)?);
        }
    }
}

/// Enough memory that CRIU takes a while.
const LARGE: &str = "import os\nkept = os.urandom(400 << 20)";

/// CRIU is stopped as soon as it is there.
pub(super) fn silent(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let config = Configuration::write(&host, LIMITS)?;
    let (good, path) = (format!("{PLACE}/good"), format!("{PLACE}/silent"));
    let task = start_python(&host, "silent", &[], LARGE)?;
    let count = counted(&task)?;
    let pid = task.pid()?;
    task.fastmig("checkpoint", &["--image-path", &good, "--leave-running"]).ok()?;
    let checkpoint = task.fastmig("checkpoint", &["--image-path", &path]);
    let checkpoint = with_stopped_criu(&host, &checkpoint, || true)?;
    busy(&task)?;
    gives_up(&host, checkpoint, &path)?;
    as_before(&task, pid, 1)?;
    task.fastmig("standby", &[]).ok()?;
    let restore = with_stopped_criu(&host, &task.fastmig("restore", &["--image-path", &good]), || true)?;
    says(&refusal(&restore.wait(SOON)?)?, &["within 3s", "killed"])?;
    task.expect_application("standby")?;
    task.fastmig("restore", &["--image-path", &good]).ok()?;
    went_on(&task, count)?;
    task.remove()?;
    drop(config);
    host.sh(&format!("rm -rf {PLACE} /var/log/fastmig")).ok()?;
    stage::nothing_is_left(&host)
}

/// A second operation does not wait longer than it is told to.
fn busy(task: &Task<'_>) -> Result<()> {
    let error = refusal(&task.fastmig("checkpoint", &["--image-path", "/var/lib/failures/other"]).output()?)?;
    says(&error, &["busy with another operation"])?;
    nothing_at(task.host, "/var/lib/failures/other")
}

fn gives_up(host: &Host, running: Background, path: &str) -> Result<()> {
    let begun = Instant::now();
    let error = refusal(&running.wait(SOON)?)?;
    ensure!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    says(&error, &["within 3s", "killed", "its log"])?;
    nothing_at(host, path)?;
    wait_until(SOON, || running_criu(host).is_none()).context("CRIU still runs")
}

/// Whether memory is written to the checkpoint that is to stand at `path`.
fn has_pages(host: &Host, path: &str) -> bool {
    let begun = |entry: &fs::DirEntry| entry.path().display().to_string().contains(&format!("{path}."));
    let entries = fs::read_dir(host.outside(PLACE)).into_iter().flatten().flatten();
    entries.filter(begun).any(|entry| entry.path().join("pages-1.img").exists())
}

/// CRIU is stopped when it writes memory: it has taken the application over then.
pub(super) fn stopped(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let config = Configuration::write(&host, LIMITS)?;
    let task = start_python(&host, "stopped", &[], LARGE)?;
    let count = counted(&task)?;
    let pid = task.pid()?;
    let path = format!("{PLACE}/stopped");
    for after in ["--leave-running", "--standby"] {
        // All memory by CRIU, so that it writes for a while.
        let options = ["--image-path", &path, after, "--strategy", "stop-copy"];
        let command = task.fastmig("checkpoint", &options);
        let running = with_stopped_criu(&host, &command, || has_pages(&host, &path))?;
        gives_up(&host, running, &path)?;
        as_before(&task, pid, 1)?;
        went_on(&task, count)?;
    }
    drop(config);
    // As nothing has happened, the next one succeeds.
    task.fastmig("checkpoint", &["--image-path", &path, "--standby"]).ok()?;
    task.fastmig("restore", &["--image-path", &path]).ok()?;
    went_on(&task, count)?;
    task.remove()?;
    host.sh(&format!("rm -rf {PLACE} /var/log/fastmig")).ok()?;
    stage::nothing_is_left(&host)
}
