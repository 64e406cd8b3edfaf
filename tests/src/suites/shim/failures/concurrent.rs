//! Two who want the same.

use anyhow::{ensure, Result};

use super::{as_before, clear, refusal, says, PLACE};
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::counter::{counted, start_python, went_on};
use crate::suites::shim::stage::{self, ctr_run, Task, FASTMIG, SOON};

pub(super) fn checkpoints(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let task = start_python(&host, "twice", &[], "import os\nkept = os.urandom(30 << 20)")?;
    let count = counted(&task)?;
    let pid = task.pid()?;
    let paths = ["one", "two"].map(|name| format!("{PLACE}/{name}"));
    let begun = paths
        .iter()
        .map(|path| task.fastmig("checkpoint", &["--image-path", path, "--leave-running"]).spawn());
    for (running, path) in begun.collect::<Result<Vec<_>>>()?.into_iter().zip(&paths) {
        let output = running.wait(SOON)?;
        ensure!(output.status.success(), "{path}: {output:?}");
    }
    as_before(&task, pid, 1)?;
    // To the same place, one wins and the other is told.
    let same = format!("{PLACE}/same");
    let begun =
        (0..2).map(|_| task.fastmig("checkpoint", &["--image-path", &same, "--leave-running"]).spawn());
    let mut lost = 0;
    for running in begun.collect::<Result<Vec<_>>>()? {
        let output = running.wait(SOON)?;
        if !output.status.success() {
            says(&refusal(&output)?, &["not empty"])?;
            lost += 1;
        }
    }
    ensure!(lost == 1, "{lost} of two lost");
    as_before(&task, pid, 1)?;
    // All that were taken can be restored.
    for path in paths.iter().chain([&same]) {
        task.fastmig("standby", &[]).ok()?;
        task.fastmig("restore", &["--image-path", path]).ok()?;
        went_on(&task, count)?;
    }
    task.remove()?;
    host.sh(&format!("rm -rf {PLACE}")).ok()?;
    stage::nothing_is_left(&host)
}

/// A runc that takes long to come back from a kill; the real one is found behind it again with its guard gone.
struct SlowKill<'a>(&'a Host);

const SLOW_RUNC: &str = "/usr/local/sbin/runc";
const SLOW_SCRIPT: &str = r#"#!/bin/sh
/usr/sbin/runc "$@" || exit
case " $* " in *" kill "*) sleep 1 ;; esac
"#;

impl<'a> SlowKill<'a> {
    fn install(host: &'a Host) -> Result<Self> {
        host.write_file(SLOW_RUNC, SLOW_SCRIPT)?;
        let guard = Self(host);
        host.cmd(["chmod", "755", SLOW_RUNC]).ok()?;
        Ok(guard)
    }
}

impl Drop for SlowKill<'_> {
    fn drop(&mut self) {
        // Without it the next case is slow, not wrong.
        let _ = self.0.cmd(["rm", "-f", SLOW_RUNC]).ok();
    }
}

/// Whoever waits for the end deletes the task, and containerd hangs up on its shim.
pub(super) fn kill_and_end(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let slow = SlowKill::install(&host)?;
    let task = Task { host: &host, id: "answered".into() };
    let foreground = ctr_run(&host, FASTMIG, &["--rm"], "busybox", &task.id, &["sleep", "1000"]).spawn()?;
    task.wait_for_status("RUNNING")?;
    task.ctr(&["kill", "-s", "KILL"], &[]).ok()?;
    let code = foreground.wait(SOON)?.status.code();
    ensure!(code == Some(137), "the container ended with {code:?}");
    drop((task, slow));
    stage::nothing_is_left(&host)
}
