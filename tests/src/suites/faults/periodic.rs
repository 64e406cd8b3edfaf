//! Checkpoints that the daemon takes by itself: they come, old ones go, one that fails changes nothing, and a policy restores
//! from the last.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use super::stage::{Mortal, SHIM};
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Generation, Host};
use crate::suites::clients::client::CTR;
use crate::suites::clients::container::SOON;
use crate::suites::clients::stage::host;

pub(super) const CASES: &[Case] =
    &[Case { name: "the daemon checkpoints by itself", run: |ctx| periodic(ctx).into() }];

const SETTINGS: &str = "/etc/fastmig/config.toml";
const PLACE: &str = "/var/lib/fastmig/checkpoints";
const NAME: &str = "f-periodic";

fn periodic(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Forky)?;
    host.start_fastmigd()?;
    let shown = shown(&host);
    host.stop_fastmigd()?;
    host.sh(&format!("rm -f {SETTINGS}; umount {PLACE} 2>/dev/null; rm -rf {PLACE}")).ok()?;
    shown
}

fn shown(host: &Arc<Host>) -> Result<()> {
    let schedule = ["--annotation", "fastmig.dev/checkpoint-every=1s", "--annotation"];
    let options = [&schedule[..], &["fastmig.dev/checkpoint-keep=2"]].concat();
    let mortal = Mortal::start(host, &CTR, SHIM, NAME, &options)?;
    let status = mortal.status()?;
    ensure!(status["schedule"] == serde_json::json!({ "every": 1, "keep": 2 }), "{status}");
    mortal.tell("was=here; echo marked")?;
    mortal.container.wait_for_log("marked\n")?;
    more(host, 3)?;
    wait_until(SOON, || there(host).is_ok_and(|there| (1..=2).contains(&there.len())))
        .with_context(|| format!("more stay than should: {:?}", there(host)))?;

    // A policy restores from the last one, also when another daemon has taken it.
    host.kill_fastmigd()?;
    host.start_fastmigd()?;
    more(host, 1)?;
    mortal.tell("exit 5")?;
    mortal.wait_for_decision(1, "restore", "as it was")?;
    wait_until(SOON, || mortal.container.expect("running").is_ok())?;
    mortal.tell("echo it was $was")?;
    mortal.container.wait_for_log("it was here\n")?;

    tells_what_it_takes(host, &mortal)?;
    fails_without_harm(host, &mortal)?;
    stays_within_budget(host)?;
    mortal.remove()
}

/// Processor, memory, I/O and pause, as figures and in the answers.
fn tells_what_it_takes(host: &Arc<Host>, mortal: &Mortal) -> Result<()> {
    let metrics = host.fastmigd_get("/metrics")?;
    for name in ["cpu_seconds_total", "memory_peak_bytes", "io_bytes_total", "pause_seconds_count"] {
        let begins = format!("fastmig_operation_{name}{{kind=\"checkpoint\"");
        let value = metrics.lines().find(|line| line.starts_with(&begins)).and_then(|l| l.split(' ').nth(1));
        let value: Option<f64> = value.and_then(|text| text.parse().ok());
        ensure!(value.is_some_and(|value| value > 0.0 || name == "io_bytes_total"), "{name}: {metrics}");
    }
    let path = mortal.container.fresh_checkpoint()?;
    let taken = mortal.container.fastmig("checkpoint", &["--standby", "--image-path", &path])?;
    let restored = mortal.container.fastmig("restore", &["--image-path", &path])?;
    for answer in [taken, restored] {
        let more_than =
            |name: &str, least: u64| answer["resources"][name].as_u64().is_some_and(|n| n > least);
        ensure!(more_than("cpu_ms", 0) && more_than("memory_peak_bytes", 1 << 20), "{answer}");
    }
    Ok(())
}

/// Without room there is none, which is told, and the application does not notice.
fn fails_without_harm(host: &Arc<Host>, mortal: &Mortal) -> Result<()> {
    let before = there(host)?;
    let events =
        host.cmd(["fastmig", "--json", "events"]).timeout(std::time::Duration::from_secs(60)).spawn()?;
    host.sh(&format!("mount -t tmpfs -o size=64k,mode=700 tmpfs {PLACE}")).ok()?;
    let failed = wait_until(SOON, || counted(host, "failed").is_ok_and(|count| count > 0));
    host.sh(&format!("umount {PLACE}")).ok()?;
    failed.context("no failure is counted")?;
    let told = || {
        let said = String::from_utf8_lossy(&events.stdout()).into_owned();
        said.lines().any(|line| line.contains("operation-ended") && line.contains("No space left"))
    };
    wait_until(SOON, told).context("no event tells why")?;
    mortal.tell("echo still $was")?;
    mortal.container.wait_for_log("still here\n")?;
    ensure!(before.iter().any(|name| there(host).is_ok_and(|there| there.contains(name))), "all are gone");
    more(host, 1).context("after the failure")
}

/// Where not even one may stay, the newest does all the same.
fn stays_within_budget(host: &Arc<Host>) -> Result<()> {
    host.write_file(SETTINGS, "[periodic]\nbudget = 1\n")?;
    host.stop_fastmigd()?;
    host.start_fastmigd()?;
    more(host, 1)?;
    wait_until(SOON, || there(host).is_ok_and(|there| there.len() == 1))
        .with_context(|| format!("{:?}", there(host)))
}

/// Waits for so many more.
fn more(host: &Host, number: u64) -> Result<()> {
    let before = counted(host, "done")?;
    wait_until(SOON, || counted(host, "done").is_ok_and(|count| count >= before + number))
        .with_context(|| format!("no more come; {}", host.fastmigd_log()))
}

fn counted(host: &Host, result: &str) -> Result<u64> {
    let metrics = host.fastmigd_get("/metrics")?;
    let line = format!("fastmig_periodic_checkpoints_total{{result=\"{result}\"}} ");
    Ok(metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0))
}

/// Their names.
fn there(host: &Host) -> Result<Vec<String>> {
    let listed = host.sh(&format!("ls {PLACE} | grep '^periodic-' | grep -v partial || true")).ok()?;
    Ok(listed.lines().map(str::to_owned).collect())
}
