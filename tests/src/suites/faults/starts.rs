//! Start options: read at each start, and refused with their line when they are wrong.

use anyhow::{ensure, Context, Result};

use super::stage::{write_policy, POLICY, SHIM, WRAPPER};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation};
use crate::suites::clients::client::{Client, Setup, CTR, DOCKER, PODMAN};
use crate::suites::clients::container::{Container, SOON};
use crate::suites::clients::stage::host;

pub(super) const CASES: &[Case] = &[
    Case { name: "start options: ctr, shim", run: |ctx| options(ctx, &CTR, SHIM, "s-ctr").into() },
    Case {
        name: "start options: docker, wrapper",
        run: |ctx| options(ctx, &DOCKER, WRAPPER, "s-docker").into(),
    },
    Case {
        name: "start options: podman, wrapper",
        run: |ctx| options(ctx, &PODMAN, WRAPPER, "s-podman").into(),
    },
    Case { name: "start options outlive the container's end", run: |ctx| outlive(ctx).into() },
];

/// Says what it was started with, and waits to be told to end.
const APPLICATION: &str = r#"echo "with ${LEVEL:-none} and [$*]"; while [ ! -e /tmp/end ]; do sleep 0.02; done; rm /tmp/end; exit 3"#;

fn setup(name: &str, runtime: &str) -> Setup {
    let mut setup = Setup::of("busybox", name, runtime);
    setup.annotations.push(("fastmig.dev/policy".into(), "test".into()));
    setup.command = ["sh", "-c", APPLICATION, "app"].map(String::from).to_vec();
    setup
}

fn options(ctx: &Ctx, client: &'static dyn Client, runtime: &str, name: &str) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    write_policy(&host, "test", POLICY)?;
    let container = Container::run(&host, client, &setup(name, runtime))?;
    let fastmig = |words: &[&str]| {
        let line = [&["fastmig", "start-options", words[0], &container.name], &words[1..]].concat();
        host.cmd(line).ok()
    };
    container.wait_for_log("with none and []\n")?;
    // A policy's restart reads them.
    fastmig(&["set", "--env", "LEVEL=a b=c", "--arg", "--more", "--arg", ""])?;
    container.exec(&["touch", "/tmp/end"]).ok()?;
    container.wait_for_log("with a b=c and [--more ]\n")?;
    ensure!(fastmig(&["get"])?.contains("LEVEL = \"a b=c\""), "not shown");
    // So does the operator's own.
    fastmig(&["set", "--arg", "x"])?;
    container.fastmig("standby", &[])?;
    container.fastmig("run", &[])?;
    container.wait_for_log("with none and [x]\n")?;
    // What is wrong is refused, and what was there stays.
    let refused = host.cmd(["fastmig", "start-options", "set", name, "--mode", "restore"]).output()?;
    ensure!(!refused.status.success() && refused.err().contains("no checkpoint"), "{}", refused.err());
    // A broken file leaves the application in standby, and the status says where.
    let shown = host.cmd(["fastmig", "--json", "start-options", "get", name]).ok()?;
    let path =
        serde_json::from_str::<serde_json::Value>(&shown)?["path"].as_str().context("no path")?.to_owned();
    host.write_file(&path, "version = 1\n\nmoed = \"run\"\n")?;
    container.exec(&["touch", "/tmp/end"]).ok()?;
    wait_until(SOON, || container.expect("standby").is_ok()).context("a broken file is not noticed")?;
    wait_until(SOON, || {
        let status = container.fastmig("status", &[]).unwrap_or_default();
        let reason = status["last_failure"]["reason"].to_string();
        reason.contains("line 3") && reason.contains("moed")
    })
    .with_context(|| format!("{:?}", container.fastmig("status", &[])))?;
    fastmig(&["clear"])?;
    container.fastmig("run", &[])?;
    wait_until(SOON, || container.logs().is_ok_and(|log| log.matches("with none and []\n").count() == 2))?;
    container.remove()
}

/// docker's container ends and starts again: runc makes another, with the same options.
fn outlive(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    write_policy(&host, "test", POLICY)?;
    let container = Container::run(&host, &DOCKER, &setup("s-outlive", WRAPPER))?;
    container.wait_for_log("with none and []\n")?;
    let set = |options: &[&str]| {
        host.cmd([&["fastmig", "start-options", "set", "s-outlive"], options].concat()).ok().map(drop)
    };
    let again = || -> Result<()> {
        container.stop()?;
        host.cmd(["docker", "start", "s-outlive"]).ok().map(drop)
    };
    set(&["--mode", "standby", "--env", "LEVEL=7"])?;
    again()?;
    container.expect("standby")?;
    container.fastmig("run", &[])?;
    container.wait_for_log("with 7 and []\n")?;
    let path = container.fresh_checkpoint()?;
    container.fastmig("checkpoint", &["--leave-running", "--image-path", &path])?;
    set(&["--mode", "restore", "--checkpoint", &path])?;
    again()?;
    container.expect("running")?;
    let status = container.fastmig("status", &[])?;
    ensure!(status["runs"] == 1 && status["last_failure"].is_null(), "it was not restored: {status}");
    ensure!(container.logs()?.matches("with 7 and").count() == 1, "it was started anew");
    // A checkpoint that is not there leaves it in standby, for that reason.
    set(&["--mode", "restore", "--checkpoint", "none"])?;
    again()?;
    container.expect("standby")?;
    let reason = container.fastmig("status", &[])?["last_failure"]["reason"].to_string();
    ensure!(reason.contains("no checkpoint"), "{reason}");
    host.cmd(["fastmig", "start-options", "clear", "s-outlive"]).ok()?;
    container.remove()
}
