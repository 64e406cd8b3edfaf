//! What goes wrong is said, undone, and does not keep the next try from going well.

mod checkpoints;
mod concurrent;
mod hanging;
mod images;
mod killed;
mod requests;
mod restores;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::counter::goes_on;
use super::stage::{on_both, Task};
use crate::framework::{Case, Host, Output};

pub(super) const CASES: &[Case] = on_both![
    "what cannot be dumped is named beforehand, and runs on" => checkpoints::undumpable,
    "a full disk leaves nothing but a running application" => checkpoints::full_disk,
    "a checkpoint that containerd asks for and fails leaves the task paused" => checkpoints::of_a_paused_task,
    "a damaged checkpoint is refused and the next is taken" => images::damaged,
    "a restore that lacks a file succeeds once it is there" => restores::missing_file,
    "a taken pid is named, and the restore succeeds once it is free" => restores::taken_pid,
    "a restore at the start that fails leaves a container in standby" => restores::at_start,
    "requests out of turn are refused" => requests::out_of_turn,
    "annotations with a wrong value are refused by name" => requests::annotations,
    "two checkpoints at once both end well" => concurrent::checkpoints,
    "a kill is answered before its container's end is told" => concurrent::kill_and_end,
    "a CRIU that never answers is killed at its limit" => hanging::silent,
    "a CRIU that stops in the middle is killed at its limit" => hanging::stopped,
    "a killed shim leaves nothing" => killed::shim,
    "a shim killed during a checkpoint leaves nothing" => killed::shim_during_checkpoint,
    "a killed containerd finds its containers again" => killed::containerd,
    "a killed init ends its container" => killed::init,
];

/// Where the cases put their checkpoints.
const PLACE: &str = "/var/lib/failures";

/// The operator's file of a host, there as long as the guard is.
struct Configuration<'a>(&'a Host);

const CONFIG: &str = "/etc/fastmig/config.toml";

impl<'a> Configuration<'a> {
    fn write(host: &'a Host, text: &str) -> Result<Self> {
        host.write_file(CONFIG, text)?;
        Ok(Self(host))
    }
}

impl Drop for Configuration<'_> {
    fn drop(&mut self) {
        // A case that goes on without its removal fails by itself.
        let _ = self.0.cmd(["rm", "-f", CONFIG]).ok();
    }
}

/// An empty place for checkpoints.
fn clear(host: &Host) -> Result<()> {
    host.sh(&format!("rm -rf {PLACE}; mkdir -m 700 -p {PLACE}")).ok().map(drop)
}

/// What a command of `fastmig --json` refused, all of it.
fn refusal(output: &Output) -> Result<String> {
    ensure!(!output.status.success(), "it was not refused: {}", output.out());
    let answer: Value = serde_json::from_str(&output.out()).with_context(|| format!("{output:?}"))?;
    Ok(answer["error"].as_str().context("no error in the answer")?.to_owned())
}

/// Fails unless the text has all of the words.
fn says(text: &str, words: &[&str]) -> Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure!(missing.is_empty(), "{missing:?} is not in: {text}");
    Ok(())
}

/// Fails unless nothing stands at or beside the place of a checkpoint.
fn nothing_at(host: &Host, path: &str) -> Result<()> {
    let found = host.sh(&format!("ls -d {path} {path}.* 2>/dev/null; true")).ok()?;
    ensure!(found.is_empty(), "left at the image path: {found}");
    Ok(())
}

/// Fails unless the application runs as before the failure.
fn as_before(task: &Task<'_>, pid: i32, runs: u64) -> Result<()> {
    goes_on(task.host, pid)?;
    ensure!(task.status()?.as_deref() == Some("RUNNING") && task.pid()? == pid, "{:?}", task.status()?);
    let state = task.state()?;
    ensure!(
        state["application"] == "running" && state["paused"] == false && state["runs"] == runs,
        "{state}"
    );
    Ok(())
}

/// The log that a message names, which must be there.
fn log_named_in<'t>(host: &Host, text: &'t str) -> Result<&'t str> {
    let (_, rest) = text.split_once("its log: \"").with_context(|| format!("no log is named: {text}"))?;
    let (path, _) = rest.split_once('"').context("half a name")?;
    host.cmd(["test", "-s", path]).ok().with_context(|| format!("no log at {path}"))?;
    Ok(path)
}
