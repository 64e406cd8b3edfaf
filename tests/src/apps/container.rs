//! One container of a test host under FastMig's runtime, as an operator runs it: `ctr` to make it, `fastmig` to move it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::framework::image::reference;
use crate::framework::process::wait_until;
use crate::framework::{Cmd, Host};

/// FastMig's runtime, as containerd calls it.
pub const RUNTIME: &str = "io.containerd.fastmig.v1";

const STATE_LIMIT: Duration = Duration::from_secs(10);

/// What a container is made from.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The image's name.
    pub image: String,
    /// Arguments of `ctr run` before the image.
    pub options: Vec<String>,
    /// The command in place of the image's own.
    pub command: Vec<String>,
}

impl Setup {
    /// A container of `image` in the network of its host.
    pub fn of(image: &str) -> Self {
        Self { image: image.to_owned(), options: vec!["--net-host".to_owned()], command: Vec::new() }
    }

    /// Adds arguments of `ctr run`.
    #[must_use]
    pub fn with<S: Into<String>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Sets the command.
    #[must_use]
    pub fn running<S: Into<String>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// The same, but the application waits to be restored.
    #[must_use]
    pub fn in_standby(self) -> Self {
        self.with(["--annotation", "fastmig.dev/start=standby"])
    }

    /// The arguments of `ctr run`.
    pub fn arguments(&self, id: &str) -> Vec<String> {
        let mut arguments = vec!["--runtime".to_owned(), RUNTIME.to_owned()];
        arguments.extend(self.options.iter().cloned());
        arguments.extend([reference(&self.image), id.to_owned()]);
        arguments.extend(self.command.iter().cloned());
        arguments
    }
}

/// How a container stands, of what `fastmig status` tells.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// PID 1, as the host counts it.
    pub pid: i32,
    /// `running`, `standby`, ...
    pub application: String,
    /// The application's root, as the container counts it.
    pub application_pid: Option<i32>,
    /// How often an application came up in it.
    pub runs: u32,
}

/// Which process is PID 1 of a container: its number in the host, and when it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstProcess(String);

/// A container with its task. It is removed when dropped.
#[derive(Debug)]
pub struct Container {
    /// Where it runs.
    pub host: Arc<Host>,
    id: String,
    removed: bool,
}

impl Container {
    /// Runs it, detached, its output in [`Container::log`].
    pub fn run(host: &Arc<Host>, id: &str, setup: &Setup) -> Result<Self> {
        let container = Self::adopt(host, id);
        let log = format!("file://{}", container.log());
        let run = ["ctr", "run", "-d", "--log-uri", &log].map(String::from);
        container.host.cmd(["rm", "-f", &container.log()]).ok()?;
        host.cmd(run.into_iter().chain(setup.arguments(id))).ok()?;
        Ok(container)
    }

    /// One that somebody else makes, to be removed like ours.
    pub fn adopt(host: &Arc<Host>, id: &str) -> Self {
        Self { host: Arc::clone(host), id: id.to_owned(), removed: false }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file of its host that has its output.
    pub fn log(&self) -> String {
        format!("/var/log/container-{}.log", self.id)
    }

    /// What it has written.
    pub fn output(&self) -> Result<Vec<u8>> {
        self.host.read_file(&self.log())
    }

    /// `fastmig VERB ID ARGUMENTS`, and its answer.
    pub fn operate(&self, verb: &str, arguments: &[&str]) -> Result<Value> {
        let answer = self.operation(verb, arguments).ok()?;
        serde_json::from_str(&answer).with_context(|| format!("fastmig {verb} answers no JSON: {answer}"))
    }

    /// The command of [`Container::operate`], for those who expect a failure.
    pub fn operation(&self, verb: &str, arguments: &[&str]) -> Cmd {
        self.host.cmd([&["fastmig", "--json", verb, &self.id], arguments].concat())
    }

    /// Saves the application to `path` and leaves the container in standby.
    pub fn checkpoint(&self, path: &str) -> Result<Value> {
        self.operate("checkpoint", &["--standby", "--files", "--image-path", path])
    }

    /// Brings the application at `path` up.
    pub fn restore(&self, path: &str) -> Result<Value> {
        self.operate("restore", &["--image-path", path])
    }

    /// How it stands.
    pub fn status(&self) -> Result<Status> {
        Ok(serde_json::from_value(self.operate("status", &[])?)?)
    }

    /// Fails unless the application is in the state `wanted`.
    pub fn require(&self, wanted: &str) -> Result<Status> {
        let status = self.status()?;
        ensure!(
            status.application == wanted,
            "container {} on host {} is {}, not {wanted}",
            self.id,
            self.host.name(),
            status.application
        );
        Ok(status)
    }

    /// Waits until the application is in the state `wanted`.
    pub fn wait_for(&self, wanted: &str) -> Result<()> {
        wait_until(STATE_LIMIT, || self.status().is_ok_and(|status| status.application == wanted))
            .with_context(|| format!("container {} did not become {wanted}", self.id))
    }

    /// Its PID 1, told from any other process that may get its number.
    pub fn first_process(&self) -> Result<FirstProcess> {
        let pid = self.status()?.pid;
        let stat = self.host.read_file(&format!("/proc/{pid}/stat"))?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        // The name in parentheses may hold blanks; the start time is the 20th field after it.
        let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
        Ok(FirstProcess(format!("{pid} since {}", started.context("no start time")?)))
    }

    /// Runs a command beside the application and answers its output.
    pub fn exec(&self, session: &str, command: &[&str]) -> Result<String> {
        self.exec_command(session, command).ok()
    }

    /// The command of [`Container::exec`].
    pub fn exec_command(&self, session: &str, command: &[&str]) -> Cmd {
        self.host.cmd([&["ctr", "tasks", "exec", "--exec-id", session, &self.id], command].concat())
    }

    /// Ends it, and removes all of it.
    pub fn remove(mut self) -> Result<()> {
        self.removed = true;
        // An attached `ctr run` removes the task of a container that has ended, though not the container.
        let script = "if ctr tasks ls -q | grep -qxF -- \"$1\"; then ctr tasks rm -f \"$1\"; fi
                      ctr containers rm \"$1\"; rm -f \"$2\"";
        self.host.cmd(["sh", "-ec", script, "sh", &self.id, &self.log()]).ok()?;
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.removed {
            let script = "ctr tasks rm -f \"$1\"; ctr containers rm \"$1\"; rm -f \"$2\"";
            // Something failed before; that is what the case tells.
            let _ = self.host.cmd(["sh", "-c", script, "sh", &self.id, &self.log()]).output();
        }
    }
}
