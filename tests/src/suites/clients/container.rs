//! A container of a client, which goes away with its guard, and the operator's commands on it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use super::client::{Client, Setup};
use crate::framework::process::wait_until;
use crate::framework::{Cmd, Host};

/// How long what should happen at once may take on a busy machine.
pub(in crate::suites) const SOON: Duration = Duration::from_secs(30);

/// Checkpoints, in memory as FastMig's own state is.
pub(in crate::suites) const CHECKPOINTS: &str = "/run/checkpoints";

pub(in crate::suites) struct Container {
    pub(in crate::suites) host: Arc<Host>,
    pub(in crate::suites) client: &'static dyn Client,
    pub(in crate::suites) name: String,
    removed: bool,
}

impl Container {
    /// Starts it in the background.
    pub(in crate::suites) fn run(
        host: &Arc<Host>,
        client: &'static dyn Client,
        setup: &Setup,
    ) -> Result<Self> {
        // The guard first: a start that fails half-way leaves a container, too.
        let container = Self { host: Arc::clone(host), client, name: setup.name.clone(), removed: false };
        host.cmd(client.run(setup)).ok()?;
        Ok(container)
    }

    /// A command beside the application.
    pub(in crate::suites) fn exec(&self, argv: &[&str]) -> Cmd {
        self.host.cmd(self.client.exec(&self.name, argv))
    }

    /// What it has written.
    pub(in crate::suites) fn logs(&self) -> Result<String> {
        self.client.logs(&self.host, &self.name)
    }

    /// Waits until it has written `text`.
    pub(in crate::suites) fn wait_for_log(&self, text: &str) -> Result<()> {
        wait_until(SOON, || self.logs().is_ok_and(|logs| logs.contains(text)))
            .with_context(|| format!("its log does not tell {text:?}: {:?}", self.logs()))
    }

    /// `fastmig VERB NAME OPTIONS`, and its answer.
    pub(in crate::suites) fn fastmig(&self, verb: &str, options: &[&str]) -> Result<Value> {
        let line = [&["fastmig", "--json", verb, &self.name], options].concat();
        let answer = self.host.cmd(line).ok()?;
        serde_json::from_str(&answer).with_context(|| format!("fastmig {verb} answers no JSON: {answer}"))
    }

    /// Saves the application, and leaves the container in standby.
    pub(in crate::suites) fn checkpoint(&self, path: &str) -> Result<()> {
        self.fastmig("checkpoint", &["--standby", "--image-path", path])?;
        self.expect("standby")
    }

    /// Brings the application at `path` up.
    pub(in crate::suites) fn restore(&self, path: &str) -> Result<()> {
        self.fastmig("restore", &["--image-path", path])?;
        self.expect("running")
    }

    /// Where a checkpoint of it goes. There is none yet.
    pub(in crate::suites) fn fresh_checkpoint(&self) -> Result<String> {
        let path = format!("{CHECKPOINTS}/{}", self.name);
        let script = "mkdir -p -m 700 \"$1\" && rm -rf -- \"$2\"";
        self.host.cmd(["sh", "-c", script, "sh", CHECKPOINTS, &path]).ok()?;
        Ok(path)
    }

    /// Fails unless the application is in this state, and the client takes the container for running.
    pub(in crate::suites) fn expect(&self, state: &str) -> Result<()> {
        let status = self.fastmig("status", &[])?;
        ensure!(status["application"] == state, "the application is not {state}: {status}");
        if !self.client.is_running(&self.host, &self.name)? {
            bail!("{} takes the container for ended", self.client.program());
        }
        Ok(())
    }

    /// Waits until the client takes it for ended.
    pub(in crate::suites) fn wait_until_ended(&self) -> Result<()> {
        wait_until(SOON, || self.client.is_running(&self.host, &self.name).is_ok_and(|running| !running))
            .with_context(|| format!("{} does not notice the end of {}", self.client.program(), self.name))
    }

    /// Ends it, and answers its exit code.
    pub(in crate::suites) fn stop(&self) -> Result<i32> {
        self.client.stop(&self.host, &self.name)
    }

    /// Removes it now; what goes wrong is an error.
    pub(in crate::suites) fn remove(mut self) -> Result<()> {
        self.removed = true;
        self.host.cmd(["rm", "-rf", "--", &format!("{CHECKPOINTS}/{}", self.name)]).ok()?;
        self.client.remove(&self.host, &self.name)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.removed {
            // Something failed before; that is what the case tells.
            let _ = self.client.remove(&self.host, &self.name);
        }
    }
}
