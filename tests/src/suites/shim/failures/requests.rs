//! Requests that cannot be granted.

use anyhow::{ensure, Context, Result};

use super::{as_before, clear, nothing_at, refusal, says, PLACE};
use crate::framework::{Ctx, Generation};
use crate::suites::shim::counter::{counted, start};
use crate::suites::shim::stage::{self, ctr_run, Task, FASTMIG};

pub(super) fn out_of_turn(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let (good, other) = (format!("{PLACE}/good"), format!("{PLACE}/other"));
    let task = start(&host, "turn", &[])?;
    counted(&task)?;
    let pid = task.pid()?;
    task.fastmig("checkpoint", &["--image-path", &good, "--leave-running"]).ok()?;
    let refused = |verb: &str, options: &[&str], words: &[&str]| {
        let output = task.fastmig(verb, options).output()?;
        refusal(&output).and_then(|error| says(&error, words)).with_context(|| format!("{verb} {options:?}"))
    };
    refused("restore", &["--image-path", &good], &["its application is running"])?;
    refused("run", &[], &["its application is running"])?;
    refused("checkpoint", &["--image-path", &good], &["not empty", "another place"])?;
    as_before(&task, pid, 1)?;
    task.fastmig("standby", &[]).ok()?;
    refused("checkpoint", &["--image-path", &other], &["its application is in standby"])?;
    nothing_at(&host, &other)?;
    let checked = task.fastmig("check", &[]).output()?;
    ensure!(checked.status.code() == Some(2) && checked.out().contains("in standby"), "{checked:?}");
    task.ctr(&["pause"], &[]).ok()?;
    refused("restore", &["--image-path", &good], &["paused", "resume it first"])?;
    task.ctr(&["resume"], &[]).ok()?;
    task.fastmig("restore", &["--image-path", &good]).ok()?;
    as_before(&task, pid, 2)?;
    task.ctr(&["kill", "-s", "KILL"], &[]).ok()?;
    task.wait_for_status("STOPPED")?;
    refused("checkpoint", &["--image-path", &other], &["gone with its container"])?;
    refused("restore", &["--image-path", &good], &["gone with its container"])?;
    task.remove()?;
    let gone = Task { host: &host, id: "turn".into() };
    let error = refusal(&gone.fastmig("checkpoint", &["--image-path", &other]).output()?)?;
    says(&error, &["\"turn\" not found"])?;
    host.sh(&format!("rm -rf {PLACE}")).ok()?;
    stage::nothing_is_left(&host)
}

/// Values that mean nothing.
const WRONG: &[&str] = &[
    "fastmig.dev/mode=maybe",
    "fastmig.dev/start=later",
    "fastmig.dev/start=restore=relative/path",
    "fastmig.dev/start=restore=",
    "fastmig.dev/tcp=perhaps",
    "fastmig.dev/io-uring=yes",
];

pub(super) fn annotations(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    for wrong in WRONG {
        let (key, value) = wrong.split_once('=').context("no value")?;
        let task = Task { host: &host, id: "wrong".into() };
        let options = ["--rm", "--annotation", wrong];
        let output = ctr_run(&host, FASTMIG, &options, "busybox", &task.id, &["true"]).output()?;
        ensure!(!output.status.success(), "{wrong} is taken: {output:?}");
        says(&output.err(), &[key, value, "must be"]).with_context(|| (*wrong).to_owned())?;
        drop(task);
        stage::nothing_is_left(&host)?;
    }
    Ok(())
}
