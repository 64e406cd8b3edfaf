//! One checkpoint after the other, for the day on which the host is gone.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::places::{Kind, Stage};
use crate::apps::container::{Container, Setup};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx};
use crate::suites::migration::stage::with_images;

pub(super) const CASES: &[Case] =
    &[Case { name: "periodic checkpoints come, stay and go", run: |ctx| periodic(ctx).into() }];

const LIMIT: Duration = Duration::from_secs(90);

fn periodic(ctx: &Ctx) -> Result<()> {
    let stage = Stage::new(ctx, Kind::Registry)?;
    for host in [&stage.a, &stage.b] {
        with_images(host, &["busybox"])?;
    }
    let count = "n=0; while :; do n=$((n + 1)); echo $n >/count; usleep 100000; done";
    let setup = Setup::of("busybox").running(["sh", "-c", count]);
    let source = Container::run(&stage.a, "resting", &setup)?;
    let destination = Container::run(&stage.b, "resting", &setup.in_standby())?;
    source.wait_for("running")?;
    let pid = source.status()?.application_pid;
    let every = source.operation("checkpoint", &["--every", "2s", "--keep", "3", "--files"]).spawn()?;
    let told = || {
        let text = String::from_utf8_lossy(&every.stdout()).into_owned();
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>()
    };
    let stored = || told().iter().filter(|report| report["error"].is_null()).count();
    wait_until(LIMIT, || stored() >= 5).with_context(|| format!("{:?}", told()))?;
    // One that fails is told, and changes nothing; those after it come.
    stage.stop()?;
    let failed = || told().iter().any(|report| report["error"].is_string());
    wait_until(LIMIT, failed).context("no failure is told")?;
    source.require("running")?;
    stage.start_again()?;
    let before = stored();
    wait_until(LIMIT, || stored() >= before + 2).with_context(|| format!("{:?}", told()))?;
    stage.a.sh("kill -TERM $(pidof fastmig)").ok()?;
    let ended = every.wait(LIMIT)?;
    ensure!(ended.status.success(), "a signal is no failure: {:?}", ended.status);
    ensure!(source.status()?.application_pid == pid, "the application is another one");
    let names = stage.names()?;
    ensure!(names.len() == 3 && names.iter().all(|name| name.starts_with("resting-")), "{names:?}");
    // The host is lost; the youngest one goes on elsewhere.
    source.remove()?;
    let restored = destination.operate("restore", &["--from", &stage.place()])?;
    ensure!(restored["path"].as_str().is_some_and(|path| path.ends_with(&names[2])), "{restored}");
    destination.require("running")?;
    let read = || Ok::<u64, anyhow::Error>(destination.exec("count", &["cat", "/count"])?.trim().parse()?);
    ensure!(read()? > 10, "it began anew");
    destination.remove()
}
