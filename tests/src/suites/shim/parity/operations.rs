//! What `ctr tasks` answers about a running container, and what it refuses.

use std::collections::BTreeSet;

use std::time::Duration;

use anyhow::{ensure, Result};
use serde_json::Value;

use crate::framework::{Ctx, Generation, Host, Output};
use crate::suites::shim::stage::{self, seen_under_stock, Events, Task, FASTMIG, SOON, STOCK};

pub(super) fn same(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let events = Events::record(&host)?;
    let stock = seen_under_stock(|limit| life(&host, &events, STOCK, limit))?;
    let ours = life(&host, &events, FASTMIG, SOON)?;
    for (stock, ours) in stock.iter().zip(&ours) {
        ensure!(stock == ours, "the stock shim gives {stock:#?}, FastMig's {ours:#?}");
    }
    ensure!(stock.len() == ours.len(), "{} steps, FastMig's {}", stock.len(), ours.len());
    drop(events);
    stage::nothing_is_left(&host)
}

/// One container's life, each step with what it showed.
fn life(host: &Host, events: &Events, runtime: &str, limit: Duration) -> Result<Vec<String>> {
    let mark = events.mark();
    let mut seen = Vec::new();
    let task = Task::start(host, runtime, &["--memory-limit", "200000000"], "life", &["sleep", "1000"])?;
    let mut step = |name: &str, output: Output| {
        seen.push(format!("{name}: {:?} {}{}", output.status.code(), output.out(), output.err()));
    };
    step("exec", task.exec_as("in", "echo in; echo er >&2; exit 6").output()?);
    step("exec of nothing", task.ctr(&["exec", "--exec-id", "n"], &["nope"]).output()?);
    step(
        "exec as a user",
        task.ctr(&["exec", "--user", "55", "--cwd", "/tmp", "--exec-id", "u"], &["sh", "-c", "id; pwd"])
            .output()?,
    );
    step("delete while running", delete(host)?);
    step("resume unpaused", task.ctr(&["resume"], &[]).output()?);
    step("pause", task.ctr(&["pause"], &[]).output()?);
    step("paused", host.sh("ctr t ls | awk '$1 == \"life\" { print $3 }'").output()?);
    step("pause again", task.ctr(&["pause"], &[]).output()?);
    step("delete while paused", delete(host)?);
    step("resume", task.ctr(&["resume"], &[]).output()?);
    step("kill of no exec", task.ctr(&["kill", "--exec-id", "zzz"], &[]).output()?);
    step("ps", host.sh("ctr t ps life | sed 's/[0-9][0-9]*/N/; s/  */ /g' | sort -u").output()?);
    seen.push(format!("metrics: {:?}", metrics(&task)?));
    task.ctr(&["kill", "-s", "KILL"], &[]).ok()?;
    task.wait_for_status("STOPPED")?;
    let mut step = |name: &str, output: Output| {
        seen.push(format!("{name}: {:?} {}{}", output.status.code(), output.out(), output.err()));
    };
    step("kill when stopped", task.ctr(&["kill"], &[]).output()?);
    step("exec when stopped", task.exec_as("gone", "true").output()?);
    step("pause when stopped", task.ctr(&["pause"], &[]).output()?);
    step("delete", delete(host)?);
    step("delete again", delete(host)?);
    host.cmd(["ctr", "containers", "rm", "life"]).ok()?;
    seen.extend(events.until_removed("life", mark, limit)?);
    Ok(seen)
}

/// Its log line has the time.
fn delete(host: &Host) -> Result<Output> {
    host.sh("ctr t rm life 2>&1 | sed 's/time=[^ ]*//'").output()
}

/// Which values there are, for they change all the time; that they are no noughts is another test's business.
fn metrics(task: &Task<'_>) -> Result<BTreeSet<String>> {
    let text = task.ctr(&["metrics", "--format", "json"], &[]).timeout(SOON).ok()?;
    let mut names = BTreeSet::new();
    collect(&serde_json::from_str(&text)?, "", &mut names);
    ensure!(names.len() > 10, "only {names:?}");
    Ok(names)
}

fn collect(value: &Value, path: &str, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, &format!("{path}/{name}"), names);
            }
        }
        Value::Array(items) => {
            for value in items {
                collect(value, path, names);
            }
        }
        // A nought is left out: a short life may have no time in one of them, or no page of one kind.
        _ if path == "/cpu/usage/user" || path == "/cpu/usage/kernel" || counts_pages(path) => {}
        _ => drop(names.insert(path.to_owned())),
    }
}

fn counts_pages(path: &str) -> bool {
    let kinds = ["cache", "_file", "_anon", "fault", "pg_pg", "dirty", "writeback", "mapped", "rss"];
    path.starts_with("/memory/") && kinds.iter().any(|kind| path.contains(kind))
}
