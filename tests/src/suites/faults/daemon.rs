//! What the daemon tells of decisions, and that it replaces keepers.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use super::stage::{Mortal, WRAPPER};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host};
use crate::suites::clients::client::PODMAN;
use crate::suites::clients::container::SOON;
use crate::suites::clients::stage::host;

pub(super) const CASES: &[Case] =
    &[Case { name: "the daemon tells of decisions and replaces a keeper", run: |ctx| tells(ctx).into() }];

fn tells(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    host.start_fastmigd()?;
    let told = told(&host);
    host.stop_fastmigd()?;
    told
}

fn told(host: &Arc<Host>) -> Result<()> {
    let events =
        host.cmd(["fastmig", "--json", "events"]).timeout(std::time::Duration::from_secs(120)).spawn()?;
    let mortal = Mortal::start(host, &PODMAN, WRAPPER, "f-daemon", &[])?;
    mortal.end_and_rise("exit 3", 1, 2, "exit code 3")?;
    let heard = |words: &str| {
        let told = String::from_utf8_lossy(&events.stdout()).into_owned();
        told.lines().any(|line| line.contains("\"type\":\"policy-decided\"") && line.contains(words))
    };
    wait_until(SOON, || heard("exit code 3")).context("no event tells of the decision")?;
    let listed = host.cmd(["fastmig", "--json", "ps"]).ok()?;
    ensure!(listed.contains("\"restarts\":1"), "the daemon does not know of the restart: {listed}");

    let first = mortal.keeper()?;
    host.cmd(["kill", "-KILL", &first.to_string()]).ok()?;
    wait_until(SOON, || mortal.keeper().is_ok_and(|keeper| keeper != first))
        .context("no other keeper came")?;
    mortal.end_and_rise("kill -SEGV $$", 2, 3, "signal 11")?;
    wait_until(SOON, || heard("signal 11")).context("no event tells of the second decision")?;
    let metrics = host.fastmigd_get("/metrics")?;
    ensure!(metrics.contains("fastmig_policy_decisions_total{action=\"scratch\"} 2"), "{metrics}");
    mortal.remove()
}
