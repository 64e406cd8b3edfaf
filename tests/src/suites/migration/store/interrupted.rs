//! What is cut short is no checkpoint, and leaves nothing that stays for ever.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::journey::nothing_on_its_way;
use super::places::{Kind, Stage};
use crate::apps::container::{Container, Setup};
use crate::framework::process::wait_until;
use crate::framework::{golang, Case, Ctx};
use crate::suites::migration::stage::with_images;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a push that is killed leaves no checkpoint",
        run: |ctx| killed(ctx, Kind::Directory).into(),
    },
    Case {
        name: "a push into an object store that is killed leaves no checkpoint",
        run: |ctx| golang::needed(|| killed(ctx, Kind::Bucket)),
    },
    Case { name: "an application that has left is not lost with its place", run: |ctx| rescued(ctx).into() },
];

/// Random bytes do not get smaller: a part of them is on its way for a while.
const BIG: &str = "head -c 200000000 /dev/urandom >/big; while :; do usleep 100000; done";
const SETUP: &str = "while :; do usleep 100000; done";

fn killed(ctx: &Ctx, kind: Kind) -> Result<()> {
    let stage = Stage::new(ctx, kind)?;
    with_images(&stage.a, &["busybox"])?;
    let source = Container::run(&stage.a, "resting", &Setup::of("busybox").running(["sh", "-c", BIG]))?;
    wait_until(Duration::from_secs(60), || is_filled(&source))
        .context("the application has not written its file")?;
    // A checkpoint on disk, pushed by hand.
    let image = "/var/tmp/checkpoint";
    stage.a.cmd(["rm", "-rf", image]).ok()?;
    source.operate("checkpoint", &["--leave-running", "--files", "--image-path", image])?;
    let push = ["fastmig", "checkpoints", "push", image, &stage.location("cut"), "--container", "resting"];
    for signal in ["TERM", "KILL"] {
        let pushing = stage.a.cmd(push).spawn()?;
        let begun = || stage.a.sh(&format!("{} | grep -q .", files(&stage))).ok().is_ok();
        wait_until(Duration::from_secs(30), begun).context("nothing arrives")?;
        stage.a.sh(&format!("kill -{signal} $(pidof fastmig-store)")).ok()?;
        let ended = pushing.wait(Duration::from_secs(30))?;
        ensure!(!ended.status.success(), "the push was not cut short");
        ensure!(stage.names()?.is_empty(), "a checkpoint is there");
        let left = stage.a.sh(&format!("{} | wc -l", files(&stage))).ok()?;
        // One that is asked to end clears up; one that is killed cannot.
        ensure!((left.trim() == "0") == (signal == "TERM"), "{left} files after SIG{signal}");
    }
    let prune = |age: &str| {
        stage.a.cmd(["fastmig", "checkpoints", "prune", &stage.place(), "--older-than", age]).ok()
    };
    prune("1h")?;
    ensure!(stage.a.sh(&format!("{} | grep -q .", files(&stage))).ok().is_ok(), "a young one is gone");
    prune("0s")?;
    let left = stage.a.sh(&files(&stage)).ok()?;
    ensure!(left.trim().is_empty(), "{left}");
    stage.a.cmd(push).ok()?;
    ensure!(stage.names()? == ["cut"], "the next try fails");
    stage.a.cmd(["rm", "-rf", image]).ok()?;
    source.remove()
}

/// What is stored, but for what the S3 server is still writing.
fn files(stage: &Stage) -> String {
    format!("find {} -type f -not -path '*/.sgwtmp/*'", stage.data())
}

fn is_filled(container: &Container) -> bool {
    let size = container.exec("size", &["stat", "-c", "%s", "/big"]);
    size.is_ok_and(|size| size.trim() == "200000000")
}

/// The place fails after the application has ended: its checkpoint is all that is left of it.
fn rescued(ctx: &Ctx) -> Result<()> {
    let stage = Stage::new(ctx, Kind::Registry)?;
    with_images(&stage.a, &["busybox"])?;
    let source = Container::run(&stage.a, "resting", &Setup::of("busybox").running(["sh", "-c", SETUP]))?;
    source.wait_for("running")?;
    stage.stop()?;
    let failed =
        source.operation("checkpoint", &["--leave-running", "--to", &stage.location("x")]).output()?;
    ensure!(!failed.status.success(), "stored nowhere");
    source.require("running")?;
    nothing_on_its_way(&stage.a)?;
    let failed = source.operation("checkpoint", &["--standby", "--to", &stage.location("x")]).output()?;
    ensure!(!failed.status.success(), "stored nowhere");
    let words = String::from_utf8_lossy(&failed.stdout).into_owned();
    ensure!(words.contains("cannot be reached"), "{words}");
    let path = words.split("--image-path ").nth(1).and_then(|rest| rest.split('`').next());
    let path = path.with_context(|| format!("no way back in {words}"))?;
    source.require("standby")?;
    source.operate("restore", &["--image-path", path])?;
    source.require("running")?;
    source.remove()
}
