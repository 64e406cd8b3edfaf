//! FastMig's daemon in a host: its certificates, its start, its violent end.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::host::Host;
use super::process::wait_until;

/// Its log in the host.
pub const LOG: &str = "/var/log/fastmigd.log";
/// Its port on a host that has a certificate.
pub const PORT: u16 = 7443;

const PID_FILE: &str = "/run/fastmigd.pid";
const SOCKET: &str = "/run/fastmig/api.sock";
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(60);

impl Host {
    /// Starts the daemon and waits until it answers.
    pub fn start_fastmigd(&self) -> Result<()> {
        self.start_fastmigd_with(&[])
    }

    /// [`Host::start_fastmigd`] with an environment of its own.
    pub fn start_fastmigd_with(&self, environment: &[(&str, &str)]) -> Result<()> {
        let environment: String =
            environment.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        let script = format!("{environment}setsid fastmigd >>{LOG} 2>&1 </dev/null & echo $! >{PID_FILE}");
        self.sh(&script).ok()?;
        wait_until(START_LIMIT, || self.fastmigd_get("/healthz").is_ok()).with_context(|| {
            format!(
                "fastmigd does not answer on host {}; its log ends:\n{}",
                self.name(),
                self.fastmigd_log()
            )
        })?;
        self.mark_baseline()
    }

    /// Kills the daemon as a crash would.
    pub fn kill_fastmigd(&self) -> Result<()> {
        self.signal_fastmigd("KILL").context("cannot kill fastmigd")
    }

    /// Stops the daemon as systemd would, and waits for its end.
    pub fn stop_fastmigd(&self) -> Result<()> {
        self.signal_fastmigd("TERM").context("fastmigd does not stop")
    }

    /// Begins a cluster: a certificate authority, and a certificate for this host, whose name it has there.
    pub fn init_cluster(&self) -> Result<()> {
        let argv = ["fastmigd", "init", "--name", self.name(), "--address", &self.fastmigd_address()];
        self.cmd(argv).ok().map(drop)
    }

    /// Joins the cluster of `first`, whose daemon must run; it knows this host at once.
    pub fn join_cluster(&self, first: &Self) -> Result<()> {
        let token = first.cmd(["fastmigd", "token"]).ok()?;
        let address = self.fastmigd_address();
        let argv = ["fastmigd", "join", token.trim(), "--name", self.name(), "--address", &address];
        self.cmd(argv).ok().map(drop)
    }

    /// What the daemon answers to a GET.
    pub fn fastmigd_get(&self, path: &str) -> Result<String> {
        let url = format!("http://fastmigd{path}");
        let argv = ["curl", "-sS", "--fail", "--max-time", "10", "--unix-socket", SOCKET, &url];
        self.cmd(argv).timeout(Duration::from_secs(15)).ok()
    }

    /// The end of the daemon's log.
    pub fn fastmigd_log(&self) -> String {
        self.cmd(["tail", "-n", "30", LOG]).ok().unwrap_or_default()
    }

    /// The daemon's process, as the host counts it.
    pub fn fastmigd_pid(&self) -> Result<i32> {
        let pid = self.cmd(["cat", PID_FILE]).ok()?;
        pid.trim().parse().context("fastmigd's pid file holds no number")
    }

    /// Where other hosts find its daemon.
    pub fn fastmigd_address(&self) -> String {
        format!("{}:{PORT}", self.address())
    }

    fn signal_fastmigd(&self, signal: &str) -> Result<()> {
        let script = format!(
            "pid=$(cat {PID_FILE}) && test \"$(cat /proc/$pid/comm)\" = fastmigd && kill -{signal} $pid && \
             while test -d /proc/$pid && ! grep -q '^State:.Z' /proc/$pid/status; do sleep 0.01; done"
        );
        self.sh(&script).timeout(STOP_LIMIT).ok().map(drop)
    }
}

/// Makes a cluster of these hosts, and starts their daemons.
pub fn cluster(hosts: &[&Host]) -> Result<()> {
    let (first, others) = hosts.split_first().context("a cluster has hosts")?;
    first.init_cluster()?;
    first.start_fastmigd()?;
    for host in others {
        host.join_cluster(first)?;
        host.start_fastmigd()?;
    }
    let known = first.cmd(["fastmigd", "peers"]).ok()?;
    ensure!(hosts.iter().all(|host| known.contains(host.name())), "{} knows only:\n{known}", first.name());
    Ok(())
}
