//! A tree of 16 processes with everything between them, and what is left of that after a move.

use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use super::hosts;
use crate::apps::container::{Container, Setup};
use crate::apps::moving::move_application;
use crate::apps::{in_container, program_mount};
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Generation};
use crate::suites::shim::stage::{nothing_is_left, SOON};

/// What its report must say of each: that it is as it was.
const CHECKS: &[&str] = &[
    "processes",
    "identities",
    "shared memory",
    "socket pairs",
    "new connection",
    "orphan",
    "interval timer",
    "far timer",
    "timer descriptor",
    "posix timer",
    "pending signals",
    "deleted file",
    "file with one name less",
    "stray files",
    "record lock",
    "lock",
];

pub(super) fn moves(ctx: &Ctx, generations: [Generation; 2], extra: &[&str]) -> Result<()> {
    let [from, to] = hosts(ctx, generations, "python")?;
    let setup = setup(extra);
    let source = Container::run(&from, "tree-1", &setup)?;
    let destination = Container::run(&to, "tree-2", &setup.in_standby())?;
    check_ready(&source, extra.contains(&"--user"))?;
    move_application(&source, &destination)?;
    check_report(&destination)?;
    destination.remove()?;
    source.remove()?;
    nothing_is_left(&from)?;
    nothing_is_left(&to)
}

pub(super) fn comes_back(ctx: &Ctx, generation: Generation) -> Result<()> {
    let [host, _] = hosts(ctx, [generation; 2], "python")?;
    let container = Container::run(&host, "tree", &setup(&["--seccomp"]))?;
    check_ready(&container, false)?;
    for _ in 0..2 {
        move_application(&container, &container)?;
        check_report(&container)?;
    }
    container.remove()?;
    nothing_is_left(&host)
}

fn setup(extra: &[&str]) -> Setup {
    let command = ["python3", &in_container("tree.py")].map(String::from);
    Setup::of("python").with(program_mount()).with(extra.iter().copied()).running(command)
}

fn check_ready(container: &Container, as_user: bool) -> Result<()> {
    let made = said(container, "ready", 1)?;
    ensure!(made["processes"] == 16, "not 16 processes: {made}");
    ensure!(made["uid"] == if as_user { 1000 } else { 0 }, "another user than asked for: {made}");
    Ok(())
}

/// Lets the tree look at itself: the signal goes to the container, and arrives at the application.
fn check_report(container: &Container) -> Result<()> {
    let before = count(container, "report");
    container.host.cmd(["ctr", "tasks", "kill", "-s", "SIGUSR2", container.id()]).ok()?;
    let report = said(container, "report", before + 1)?;
    let wrong: Vec<&&str> = CHECKS.iter().filter(|check| report[**check] != true).collect();
    if !wrong.is_empty() {
        bail!("not as before: {wrong:?} in {report}");
    }
    Ok(())
}

fn count(container: &Container, word: &str) -> usize {
    let output = container.output().unwrap_or_default();
    String::from_utf8_lossy(&output).lines().filter(|line| line.starts_with(word)).count()
}

/// What it says after `word`, the `number`th time.
fn said(container: &Container, word: &str, number: usize) -> Result<Value> {
    let seen = || count(container, word) >= number;
    let waited = wait_until(SOON + Duration::from_secs(20), seen);
    let output = String::from_utf8_lossy(&container.output()?).into_owned();
    waited.with_context(|| format!("it did not say {word}, but:\n{output}"))?;
    let line = output.lines().filter_map(|line| line.strip_prefix(word)).nth(number - 1);
    serde_json::from_str(line.unwrap_or_default()).with_context(|| format!("{word} what? {line:?}"))
}
