//! Hooks around `fastmig checkpoint` and `fastmig restore`: each stage once, with the facts that it is promised, and what a
//! failure does.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::apps::container::{Container, Setup};
use crate::framework::settings::{at_every_stage, hook, Settings, STAGES};
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::{pair, with_images};

pub(super) const CASES: &[Case] = &[
    Case { name: "hooks run around a checkpoint and a restore", run: |ctx| in_order(ctx).into() },
    Case { name: "a failing hook aborts, unless it is ignored", run: |ctx| failures(ctx).into() },
];

const LOG: &str = "/tmp/hooks.log";
const IMAGE: &str = "/tmp/hooks-image";

/// The settings of a host while this lives, and what its hooks were told.
struct Hooked<'a> {
    host: &'a Host,
    _settings: Settings<'a>,
}

impl<'a> Hooked<'a> {
    /// A hook at every stage that writes down what it is told; `rest` are further settings.
    fn new(host: &'a Host, rest: &str) -> Result<Self> {
        let log = format!("cat >>{LOG}; echo >>{LOG}");
        let settings = Settings::new(host, &(at_every_stage(&["sh", "-c", &log]) + rest))?;
        host.cmd(["rm", "-rf", LOG, IMAGE]).ok()?;
        Ok(Self { host, _settings: settings })
    }

    fn told(&self) -> Result<Vec<Value>> {
        let text = self.host.read_file(LOG)?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).context("a hook was told no JSON")).collect()
    }

    fn stages(&self) -> Result<Vec<String>> {
        let told = self.told()?;
        Ok(told.iter().map(|facts| facts["stage"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

impl Drop for Hooked<'_> {
    fn drop(&mut self) {
        let _ = self.host.cmd(["rm", "-rf", LOG, IMAGE]).output();
    }
}

fn sleeper(host: &std::sync::Arc<Host>) -> Result<Container> {
    with_images(host, &["busybox"])?;
    let container = Container::run(host, "hooked", &Setup::of("busybox").running(["sleep", "1000"]))?;
    container.wait_for("running")?;
    Ok(container)
}

fn in_order(ctx: &Ctx) -> Result<()> {
    let (host, _) = pair(ctx)?;
    let container = sleeper(&host)?;
    let hooked = Hooked::new(&host, "")?;
    container.checkpoint(IMAGE)?;
    container.restore(IMAGE)?;
    ensure!(hooked.stages()? == STAGES[..4], "the hooks ran so: {:?}", hooked.stages()?);
    let told = hooked.told()?;
    let pid = container.status()?.pid;
    for facts in &told {
        let container = &facts["container"];
        ensure!(container["id"] == "hooked" && container["pid"] == pid, "another container: {facts}");
        ensure!(container["namespace"] == "default", "another namespace: {facts}");
        let addresses = container["addresses"].as_array().context("no addresses")?;
        let own = format!("{}/24", host.address());
        ensure!(addresses.iter().any(|address| *address == own.as_str()), "not its address: {facts}");
        ensure!(facts["version"] == 1 && facts["host"].is_string(), "incomplete: {facts}");
    }
    ensure!(told[0]["operation"] == "checkpoint" && told[0]["direction"] == "leaving", "{}", told[0]);
    ensure!(told[0]["after"] == "standby", "what becomes of the application is not told: {}", told[0]);
    ensure!(told[2]["operation"] == "restore" && told[2]["direction"] == "arriving", "{}", told[2]);
    container.remove()
}

fn failures(ctx: &Ctx) -> Result<()> {
    let (host, _) = pair(ctx)?;
    let container = sleeper(&host)?;
    let failing = |when: &str, rest: &str| hook(when, &["sh", "-c", "echo full >&2; exit 7"], rest);
    let checkpoint = || container.operation("checkpoint", &["--standby", "--image-path", IMAGE]).output();
    let hooked = Hooked::new(&host, &failing("pre-checkpoint", ""))?;
    let refused = checkpoint()?;
    let said = refused.out() + &refused.err();
    ensure!(!refused.status.success(), "a failing hook did not stop the checkpoint");
    ensure!(said.contains("pre-checkpoint") && said.contains("full"), "the reason is not told: {said}");
    ensure!(hooked.stages()? == ["pre-checkpoint", "aborted"], "{:?}", hooked.stages()?);
    let reason = hooked.told()?[1]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("exit status: 7"), "the reason is not told: {reason:?}");
    container.require("running")?;
    drop(hooked);

    let hooked = Hooked::new(&host, &failing("pre-checkpoint", "on_failure = \"ignore\""))?;
    let done = checkpoint()?;
    ensure!(done.status.success(), "a failure that is to be ignored is not: {}", done.err());
    container.require("standby")?;
    drop(hooked);

    let hooked = Hooked::new(&host, &failing("pre-restore", "containers = [\"other\"]"))?;
    let refused = container.operation("restore", &["--image-path", "/nowhere"]).output()?;
    ensure!(!refused.status.success(), "restored from nothing");
    ensure!(hooked.stages()? == ["pre-restore", "aborted"], "{:?}", hooked.stages()?);
    container.require("standby")?;
    drop(hooked);
    container.remove()
}
