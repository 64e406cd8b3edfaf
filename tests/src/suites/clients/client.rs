//! A client of the field, as a user types it: one file for each, one command line for each verb.
//!
//! What most of them share is that of docker's command line; a client says where it differs.

mod ctr;
mod docker;
mod nerdctl;
mod podman;

use anyhow::{Context, Result};

use crate::framework::{Host, Output};

pub(in crate::suites) use ctr::CTR;
pub(in crate::suites) use docker::DOCKER;
pub(in crate::suites) use nerdctl::NERDCTL;
pub(in crate::suites) use podman::PODMAN;

/// How a container reaches the network.
#[derive(Debug, Clone, Copy)]
pub(in crate::suites) enum Network {
    /// That of its host.
    Host,
    /// One of its own, with this port published under the same number where the client can.
    Published(u16),
}

/// What a container is made from.
#[derive(Debug, Clone)]
pub(in crate::suites) struct Setup {
    pub(in crate::suites) name: String,
    pub(in crate::suites) image: String,
    /// The runtime, in the client's own words.
    pub(in crate::suites) runtime: String,
    pub(in crate::suites) network: Network,
    pub(in crate::suites) annotations: Vec<(String, String)>,
    /// More of `run`'s options, in the client's own words.
    pub(in crate::suites) options: Vec<String>,
    /// Directories of the host, and where the container sees them, read-only.
    pub(in crate::suites) mounts: Vec<(String, String)>,
    /// In place of the image's own command.
    pub(in crate::suites) command: Vec<String>,
}

impl Setup {
    /// A container of `image` in its host's network, with the image's own command.
    pub(in crate::suites) fn of(image: &str, name: &str, runtime: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            runtime: runtime.to_owned(),
            network: Network::Host,
            annotations: Vec::new(),
            options: Vec::new(),
            mounts: Vec::new(),
            command: Vec::new(),
        }
    }

    /// The same, but the application waits to be restored.
    pub(in crate::suites) fn in_standby(mut self) -> Self {
        self.annotations.push(("fastmig.dev/start".into(), "standby".into()));
        self
    }
}

/// One client.
pub(in crate::suites) trait Client: Sync {
    /// Its program.
    fn program(&self) -> &'static str;

    /// Why it cannot be tested on this machine.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Why a command of its own cannot be tested with the one that this machine has.
    fn lacks(&self, _command: &str) -> Option<String> {
        None
    }

    /// The command line that ends in `run`, with this runtime.
    fn run_with(&self, runtime: &str) -> Vec<String> {
        words(&[self.program(), "run", "--runtime", runtime])
    }

    /// Starts a container in the background.
    fn run(&self, setup: &Setup) -> Vec<String> {
        let mut line = self.run_with(&setup.runtime);
        line.extend(words(&["-d", "--name", &setup.name]));
        match setup.network {
            Network::Host => line.extend(words(&["--network", "host"])),
            Network::Published(port) => line.extend(words(&["-p", &format!("{port}:{port}")])),
        }
        for (key, value) in &setup.annotations {
            line.extend(words(&["--annotation", &format!("{key}={value}")]));
        }
        line.extend(setup.options.iter().cloned());
        for (source, target) in &setup.mounts {
            line.extend(words(&["-v", &format!("{source}:{target}:ro")]));
        }
        line.push(image(&setup.image));
        line.extend(setup.command.iter().cloned());
        line
    }

    /// Runs a command beside the application.
    fn exec(&self, name: &str, argv: &[&str]) -> Vec<String> {
        words(&[&[self.program(), "exec", name], argv].concat())
    }

    /// The exit code of a command beside the application, as the client tells it.
    fn exec_code(&self, output: &Output) -> Option<i32> {
        output.status.code()
    }

    /// What the container has written, standard error included.
    fn logs(&self, host: &Host, name: &str) -> Result<String> {
        let output = host.cmd([self.program(), "logs", name]).output()?;
        Ok(output.out() + &output.err())
    }

    /// Whether the client takes it for running.
    fn is_running(&self, host: &Host, name: &str) -> Result<bool> {
        let line = [self.program(), "inspect", "-f", "{{.State.Status}}", name];
        Ok(host.cmd(line).ok()?.trim() == "running")
    }

    /// Ends it as the client does, and answers its exit code.
    fn stop(&self, host: &Host, name: &str) -> Result<i32> {
        host.cmd([self.program(), "stop", name]).ok()?;
        let code = host.cmd([self.program(), "inspect", "-f", "{{.State.ExitCode}}", name]).ok()?;
        code.trim().parse().with_context(|| format!("{} tells the exit code {code:?}", self.program()))
    }

    /// Removes it, whatever it does.
    fn remove(&self, host: &Host, name: &str) -> Result<()> {
        host.cmd([self.program(), "rm", "-f", name]).ok().map(drop)
    }
}

/// The image as the clients with a default registry know it, whatever they put before it.
pub(in crate::suites) fn image(name: &str) -> String {
    format!("{name}:1")
}

/// The number that follows `words` in a text.
fn number_after(text: &str, words: &str) -> Option<i32> {
    let rest = text.split_once(words)?.1.trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}
