//! containerd in a host: its configuration, its start, its violent end.

use std::time::Duration;

use anyhow::{Context, Result};

use super::host::Host;
use super::process::wait_until;
use super::recipe::Generation;

/// Its log in the host.
pub const LOG: &str = "/var/log/containerd.log";

const PID_FILE: &str = "/run/containerd.pid";
const CONFIG: &str = "/etc/containerd/config.toml";
const START_LIMIT: Duration = Duration::from_secs(20);

impl Host {
    /// Starts containerd and waits until it answers. Shims are found in the host's path.
    pub fn start_containerd(&self) -> Result<()> {
        self.write_file(CONFIG, config(self.generation()))?;
        self.start_configured_containerd()
    }

    /// As [`Host::start_containerd`], but its restart monitor comes once and then rarely. What has `--restart` and does not run
    /// yet that kills and starts once more, also between its creation and its start, so that a client's `run` fails every now
    /// and then, with runc alike.
    pub fn start_containerd_that_restarts_nothing(&self) -> Result<()> {
        let config = config(self.generation()).to_owned()
            + "\n[plugins.\"io.containerd.internal.v1.restart\"]\n  interval = \"1h\"\n";
        self.write_file(CONFIG, config)?;
        self.start_configured_containerd()
    }

    /// As [`Host::start_containerd`], with the configuration that is there.
    pub fn start_configured_containerd(&self) -> Result<()> {
        let script = format!("setsid containerd >>{LOG} 2>&1 </dev/null & echo $! >{PID_FILE}");
        self.sh(&script).ok()?;
        let answers = || self.cmd(["ctr", "version"]).output().is_ok_and(|output| output.status.success());
        wait_until(START_LIMIT, answers).with_context(|| {
            let log = self.cmd(["tail", "-n", "20", LOG]).ok().unwrap_or_default();
            format!("containerd does not answer on host {}; its log ends:\n{log}", self.name())
        })?;
        self.mark_baseline()
    }

    /// Kills containerd as a crash would; its containers run on.
    pub fn kill_containerd(&self) -> Result<()> {
        let script = format!(
            "pid=$(cat {PID_FILE}) && test \"$(cat /proc/$pid/comm)\" = containerd && kill -KILL $pid && \
             while test -d /proc/$pid; do sleep 0.01; done"
        );
        self.sh(&script).ok().context("cannot kill containerd").map(drop)
    }
}

/// The CRI plugin stays out: it takes most of the start, and pods have a suite of their own.
fn config(generation: Generation) -> &'static str {
    match generation {
        Generation::Trixie => "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        Generation::Forky => {
            "version = 3\ndisabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \
             \"io.containerd.grpc.v1.cri\"]\n"
        }
    }
}
