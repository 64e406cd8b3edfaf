//! What became of the application: waited for, looked at, and set right.

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use super::phases::{Operation, Phase};
use super::seen::{self, Fate};
use super::subject::{Subject, SOON};
use crate::apps::container::Container;
use crate::apps::migrating;
use crate::framework::process::wait_until;
use crate::framework::Cmd;

const API: &str = "/run/fastmig/api.sock";

impl Subject {
    /// Notes what became of it, and the reason that was given.
    pub(super) fn note(&self, fate: Fate, reason: &str) {
        seen::note(self.fault(), self.phase(), fate, reason);
    }

    /// Waits until it runs or is in standby, and nobody is at it.
    pub(super) fn settled(&mut self) -> Result<Fate> {
        let mut state = String::new();
        let clear = wait_until(SOON, || {
            let Ok(status) = self.status() else { return false };
            status["application"].as_str().unwrap_or_default().clone_into(&mut state);
            (state == "standby" && !self.is_to_come_up(&status)) || state == "running"
        });
        clear.with_context(|| format!("it is not clear what became of it: {}", self.describe()))?;
        if state == "standby" {
            return Ok(Fate::Standby);
        }
        let was = self.answers()?;
        Ok(match (was == self.marked(), self.phase()) {
            (true, Phase::Restoring) => Fate::Restored,
            (true, _) => Fate::RunsOn,
            (false, _) => Fate::Scratch,
        })
    }

    /// Whether it has ended and nobody has decided yet, or what was decided is not done yet.
    fn is_to_come_up(&self, status: &Value) -> bool {
        let last = &status["policy"]["last"];
        let is_new = *last != self.before().decision;
        let failed_since = status["last_failure"]["at"].as_str() > last["at"].as_str();
        let comes_up = ["scratch", "restore"].iter().any(|action| last["action"] == *action);
        is_new && comes_up && !failed_since
    }

    /// What the policy has decided anew, once it is done; and its reason.
    pub(super) fn decided(&mut self) -> Result<(Fate, String)> {
        let past = self.before().decision.clone();
        self.decided_when(|last| *last != past)
    }

    /// The same, once the action is this one.
    pub(super) fn decided_at_last(&mut self, action: &str) -> Result<(Fate, String)> {
        let past = self.before().decision.clone();
        self.decided_when(|last| *last != past && last["action"] == action)
    }

    fn decided_when(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<(Fate, String)> {
        wait_until(SOON, || self.told().is_ok_and(|told| is_it(&told.decision)))
            .with_context(|| format!("nothing is decided: {}", self.describe()))?;
        let last = self.told()?.decision;
        let action = last["action"].as_str().unwrap_or_default();
        let (state, fate) = match action {
            "standby" => ("standby", Fate::Standby),
            "scratch" => ("running", Fate::Scratch),
            "restore" => ("running", Fate::Restored),
            other => bail!("it was decided: {other}"),
        };
        wait_until(SOON, || self.status().is_ok_and(|status| status["application"] == state))
            .with_context(|| format!("{action} was decided, and it is not {state}: {}", self.describe()))?;
        if state == "running" {
            self.answers()?;
        }
        Ok((fate, last["reason"].as_str().unwrap_or_default().to_owned()))
    }

    /// It has come to where it is now, with all that it had.
    pub(super) fn arrived(&mut self) -> Result<()> {
        wait_until(SOON, || self.status().is_ok_and(|status| status["application"] == "running"))
            .with_context(|| format!("it has not arrived: {}", self.describe()))?;
        ensure!(self.answers()? == self.marked(), "it has lost what it had: {}", self.describe());
        self.take_for_past()
    }

    /// Where it is once that is decided; never at both. Whether it has moved.
    pub(super) fn follow(&mut self) -> Result<bool> {
        let state = |end: &Container| {
            let status = end.operate("status", &[]).ok()?;
            Some((status["application"].as_str()?.to_owned(), status["migration"].is_null()))
        };
        let mut states = [None, None];
        let clear = wait_until(SOON, || {
            states = [self.source(), self.destination()].map(state);
            // What has gone with its shim or its host has nothing to decide.
            states.iter().flatten().all(|(application, settled)| *settled && application != "restoring")
        });
        clear.with_context(|| format!("its migration stays undecided: {}", self.describe()))?;
        let runs =
            |state: &Option<(String, bool)>| state.as_ref().is_some_and(|(state, _)| state == "running");
        ensure!(!(runs(&states[0]) && runs(&states[1])), "it runs at both: {}", self.describe());
        let moved = runs(&states[1]);
        if moved {
            self.has_moved();
        }
        Ok(moved)
    }

    /// Whatever has happened: it runs, and is checkpointed, restored and moved as ever.
    pub(super) fn goes_on(&mut self) -> Result<()> {
        self.recover()?;
        self.mark()?;
        self.stand_by().context("a later checkpoint")?;
        self.source().restore(&self.image()).context("a later restore")?;
        ensure!(self.answers()? == self.marked(), "a later restore has not brought its memory back");
        let report =
            migrating::migrate(self.source(), self.destination(), &[]).context("a later migration")?;
        self.told_at_both_ends(&report)?;
        self.has_moved();
        ensure!(self.answers()? == self.marked(), "a later migration has not brought its memory along");
        Ok(())
    }

    /// Its id is in the log of operations of both hosts.
    fn told_at_both_ends(&self, report: &Value) -> Result<()> {
        let id = report["id"].as_str().context("a migration without an id")?;
        for (end, what) in [(self.source(), "leave"), (self.destination(), "arrive")] {
            let log = end.host.read_file("/var/log/fastmig/operations.jsonl")?;
            let log = String::from_utf8_lossy(&log).into_owned();
            let is_told = |step: &str| {
                let words =
                    [format!("\"migration\":\"{id}\""), format!("\"step\":\"{step}\",\"what\":\"{what}\"")];
                log.lines().any(|line| words.iter().all(|word| line.contains(word)))
            };
            ensure!(
                is_told("began") && is_told("done"),
                "{what} of {id} is not told on host {}",
                end.host.name()
            );
        }
        Ok(())
    }

    /// It runs, whatever it was.
    pub(super) fn recover(&mut self) -> Result<()> {
        if self.status()?["application"] == "standby" {
            // Its policy may be quicker.
            let started = self.source().operate("run", &[]).context("a later start");
            if self.status()?["application"] == "standby" {
                started?;
            }
        }
        self.answers().map(drop)
    }

    /// A restore from there.
    pub(super) fn restored_from(&self, path: &str) -> Result<Operation> {
        let output = self.source().operation("restore", &["--image-path", path]).output()?;
        Ok(Operation::of(&output))
    }

    /// A call of the daemon's.
    pub(super) fn call(&self, verb: &str, body: &str) -> Cmd {
        let url = format!("http://fastmig/v1/containers/{}/{verb}", self.source().id());
        let curl = ["curl", "-sS", "--fail-with-body", "--unix-socket", API, "-X", "POST", &url, "-d", body];
        self.source().host.cmd(curl)
    }

    /// The daemon has a checkpoint of it as it is now, which it comes up from when its container is started again.
    pub(super) fn keep(&mut self) -> Result<()> {
        let body = format!("{{\"name\":\"{}\",\"replace\":true,\"files\":true}}", self.name());
        self.call("checkpoint", &body).ok()?;
        let options = ["--mode", "restore", "--checkpoint", "latest"];
        let line = [&["fastmig", "start-options", "set", self.source().id()], &options[..]].concat();
        self.source().host.cmd(line).ok()?;
        self.take_for_past()
    }

    /// Its container has ended; it is started again, and the application is there with what it had.
    pub(super) fn start_again(&mut self) -> Result<()> {
        start(self.source())?;
        self.arrived()
    }

    /// The same for the other one, which is to wait.
    pub(super) fn start_other_again(&mut self) -> Result<()> {
        let other = self.destination();
        let options = format!("/var/lib/fastmig/start/default/{}.toml", other.id());
        other.host.cmd(["rm", "-f", &options]).ok()?;
        start(other)?;
        if other.status()?.application == "running" {
            other.operate("standby", &[])?;
        }
        other.require("standby").map(drop)
    }
}

/// Starts a container whose task has ended.
fn start(container: &Container) -> Result<()> {
    let (host, id) = (&container.host, container.id());
    let is_over = || {
        let status = container.operate("status", &[]);
        status.is_ok_and(|status| status["application"] == "ended") || container.status().is_err()
    };
    wait_until(SOON, is_over).with_context(|| format!("{id} does not end"))?;
    let script = "ctr tasks rm -f \"$1\" 2>/dev/null; exec ctr tasks start -d --log-uri \"file://$2\" \"$1\"";
    let mut said = String::new();
    let started = wait_until(SOON, || {
        let output = host.cmd(["sh", "-c", script, "sh", id, &container.log()]).output();
        output.is_ok_and(|output| {
            said = output.err();
            output.status.success()
        })
    });
    started.with_context(|| format!("{id} cannot be started again: {said}"))?;
    let up = ["running", "standby"];
    wait_until(SOON, || container.status().is_ok_and(|status| up.contains(&status.application.as_str())))
        .with_context(|| format!("{id} does not come up again"))
}
