//! One id through all that is told of an operation: by command line, shim, daemon, keeper, and what the init was asked.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::{Mortal, SHIM};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host};
use crate::suites::clients::client::CTR;
use crate::suites::clients::container::SOON;
use crate::suites::clients::stage::host;

pub(super) const CASES: &[Case] =
    &[Case { name: "one id leads through the log of operations", run: |ctx| traced(ctx).into() }];

const NAME: &str = "f-trace";

fn traced(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    host.start_fastmigd()?;
    let shown = shown(&host);
    host.stop_fastmigd()?;
    shown
}

fn shown(host: &Arc<Host>) -> Result<()> {
    let mortal = Mortal::start(host, &CTR, SHIM, NAME, &[])?;
    // The daemon's: the id that it answers with.
    let call = "curl -sS --fail-with-body --unix-socket /run/fastmig/api.sock -X POST \
                http://fastmig/v1/containers/f-trace/standby -d '{}'";
    let answer: Value = serde_json::from_str(&host.sh(call).ok()?)?;
    let id = answer["operation"].as_str().context("the daemon's answer has no operation")?;
    let steps = steps(host, id)?;
    says(&steps, &["fastmigd began standby", "fastmigd init stop", "fastmigd done standby"])?;
    // The command line's, and the shim's.
    mortal.container.fastmig("run", &[])?;
    let run = last(host, "run")?;
    says(&self::steps(host, &run)?, &["fastmig began run", "fastmig init release", "fastmig done run"])?;
    host.cmd(["ctr", "tasks", "checkpoint", NAME]).ok()?;
    let taken = last(host, "checkpoint")?;
    let shim = "containerd-shim-fastmig-v1";
    says(
        &self::steps(host, &taken)?,
        &[&format!("{shim} began checkpoint"), &format!("{shim} done checkpoint")],
    )?;
    // The keeper's: what was decided and what was done because of it.
    mortal.tell("exit 3")?;
    let status = mortal.wait_for_decision(1, "scratch", "exit code 3")?;
    let id = status["policy"]["last"]["operation"].as_str().context("a decision without an id")?;
    let wanted = ["keeper decided scratch", "keeper began run", "keeper init release", "keeper done run"];
    let all = || self::steps(host, id).and_then(|steps| says(&steps, &wanted));
    let _ = wait_until(SOON, || all().is_ok());
    all()?;
    mortal.remove()
}

fn lines(host: &Host) -> Result<Vec<Value>> {
    let text = host.read_file("/var/log/fastmig/operations.jsonl")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The steps of one id, in order: who, what, of what.
fn steps(host: &Host, id: &str) -> Result<Vec<String>> {
    let word = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let of_it = lines(host)?.into_iter().filter(|line| line["id"] == id && line["container"] == NAME);
    Ok(of_it.map(|line| ["program", "step", "what"].map(|name| word(&line, name)).join(" ")).collect())
}

/// The id of the last operation of this kind.
fn last(host: &Host, what: &str) -> Result<String> {
    let lines = lines(host)?;
    let found = lines.iter().rev().find(|line| line["what"] == what && line["container"] == NAME);
    found
        .and_then(|line| Some(line["id"].as_str()?.to_owned()))
        .with_context(|| format!("no {what} in {lines:?}"))
}

/// All of `wanted`, in this order.
fn says(steps: &[String], wanted: &[&str]) -> Result<()> {
    let mut left = steps.iter();
    let found = wanted.iter().all(|wanted| left.any(|step| step == wanted));
    ensure!(found, "{wanted:?} is not in {steps:?}");
    Ok(())
}
