//! Two who want the same.

use anyhow::{ensure, Result};

use super::{as_before, clear, refusal, says, PLACE};
use crate::framework::{Ctx, Generation};
use crate::suites::shim::counter::{counted, start_python, went_on};
use crate::suites::shim::stage::{self, SOON};

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
