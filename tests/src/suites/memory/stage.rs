//! What the cases stand on: the hosts of the suite `migration`, with the image of the programs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::apps::container::Container;
use crate::apps::memory::{image, Moved, Pair};
use crate::apps::migrating;
use crate::framework::process::wait_until;
use crate::framework::{Background, Ctx, Host};
use crate::suites::migration::faults::state_of;
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};

/// How long a migration may take to come to the point where it stands still.
const STANDS: Duration = Duration::from_secs(60);

/// Both hosts, with daemons.
pub(super) fn hosts(ctx: &Ctx) -> Result<(Arc<Host>, Arc<Host>)> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &[image()])?;
    }
    Ok((a, b))
}

/// Why a migration failed, of the answer of `fastmig --json migrate`.
pub(super) fn error_of(answer: &str) -> Result<String> {
    let told: Value = serde_json::from_str(answer).with_context(|| format!("no answer: {answer}"))?;
    Ok(told["error"].as_str().with_context(|| format!("no error: {answer}"))?.to_owned())
}

/// Moves a program so often, from a to b and back. All of its memory is looked at before and after each move.
pub(super) fn moves(ctx: &Ctx, words: &[&str], times: usize) -> Result<Vec<Moved>> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, words)?;
    let moved = (0..times).map(|_| pair.migrate()).collect::<Result<Vec<_>>>()?;
    pair.remove()?;
    for host in [&a, &b] {
        nothing_is_left(host)?;
    }
    moved.iter().for_each(|moved| tell(words, moved));
    Ok(moved)
}

/// How long it was frozen, and for what.
pub(super) fn frozen(report: &Value) -> String {
    let phases = report["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let frozen = phases.iter().filter(|phase| phase["side"] == "source" && phase["frozen"] == true);
    let part = |phase: &Value| format!("{} {} ms", phase["phase"].as_str().unwrap_or_default(), phase["ms"]);
    let parts: Vec<String> = frozen.map(part).collect();
    format!("frozen {} ms: {}", report["frozen_ms"], parts.join(", "))
}

pub(super) fn tell(words: &[&str], moved: &Moved) {
    let phases = moved.report["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let verify = phases.iter().find(|took| took["phase"] == "verify" && took["side"] == "source");
    let compared = verify.and_then(|took| took["ms"].as_u64()).unwrap_or(0);
    let [before, after] = moved.held_kib.map(|kib| kib / 1024);
    println!(
        "    {}: it saw a gap of {:.1} ms, was frozen for {} ms of {}, {compared} of them for the comparison \
         ({} foretold without); {before} MiB held before, {after} after",
        words.join(" "),
        moved.pause.as_secs_f64() * 1000.0,
        moved.report["frozen_ms"],
        moved.report["total_ms"],
        moved.report["predicted_freeze_ms"],
    );
    if std::env::var_os("FASTMIG_REPORTS").is_some() {
        println!("    {}", moved.report);
    }
    if moved.write_only > 0 {
        println!("    CRIU left {} of its pages without read access", moved.write_only);
    }
}

/// A migration whose destination's daemon stands still at a point, and the number of that one. It is to be started anew afterwards.
pub(super) fn until(
    [source, destination]: [&Container; 2],
    point: &str,
    options: &[&str],
) -> Result<(Background, String)> {
    let host = &destination.host;
    host.stop_fastmigd()?;
    host.start_fastmigd_with(&[("FASTMIGD_STOP_AT", &format!("destination:{point}"))])?;
    let migration = migrating::command(source, destination, options).spawn()?;
    let pid = host.fastmigd_pid()?.to_string();
    wait_until(STANDS, || state_of(host, &pid) == Some('T')).context("the migration never came there")?;
    Ok((migration, pid))
}
