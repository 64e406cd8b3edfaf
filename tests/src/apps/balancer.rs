//! HAProxy on a host of its own, a server behind it that moves, and wrk before it that asks all the time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::framework::command::Output;
use crate::framework::process::wait_until;
use crate::framework::settings::at_every_stage;
use crate::framework::{Background, Host};

/// The port of the server.
pub const PORT: u16 = 80;
/// HAProxy's port for clients.
pub const FRONT: u16 = 8000;

const ADMIN: u16 = 9999;
const LIMIT: Duration = Duration::from_secs(30);

/// HAProxy on a host of its own, for a server on another.
#[derive(Debug)]
pub struct Balancer {
    /// Where it runs.
    pub host: Arc<Host>,
    process: Background,
}

impl Balancer {
    /// Starts it on `host` for the server `server`.
    pub fn up(host: &Arc<Host>, server: &Host, port: u16) -> Result<Self> {
        let host = Arc::clone(host);
        let (own, there) = (host.address(), server.address());
        let settings = format!(
            "global\n  stats socket ipv4@{own}:{ADMIN} level admin\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend all\n  bind *:{FRONT}\n  default_backend web\n\
             backend web\n  server web {there}:{port}\n"
        );
        host.write_file("/etc/haproxy/haproxy.cfg", settings)?;
        let process = host.cmd(["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]).spawn()?;
        let balancer = Self { host, process };
        let up = || balancer.tell("show info").is_ok_and(|answer| answer.contains("Version"));
        wait_until(LIMIT, up)
            .with_context(|| String::from_utf8_lossy(&balancer.process.stderr()).into_owned())?;
        Ok(balancer)
    }

    /// A command of its admin socket.
    pub fn tell(&self, command: &str) -> Result<String> {
        let socket = format!("TCP:{}:{ADMIN}", self.host.address());
        self.host.cmd(["socat", "-t5", "-", &socket]).stdin(format!("{command}\n")).ok()
    }

    /// Names, addresses and administrative states of its servers.
    fn servers(&self) -> Result<Vec<String>> {
        let table = self.tell("show servers state web")?;
        let rows = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        Ok(rows
            .filter(|row| row.len() > 18 && row[0] != "#")
            .map(|row| format!("{} {}:{} {}", row[3], row[4], row[18], row[6]))
            .collect())
    }

    /// Fails unless there is one server again, in service on this host.
    pub fn require_at(&self, server: &Host, port: u16) -> Result<()> {
        let wanted = format!("web {}:{port} 0", server.address());
        // The stand-in goes when the last connection that waited has ended.
        let alone = wait_until(LIMIT, || self.servers().is_ok_and(|servers| servers == [wanted.clone()]));
        alone.with_context(|| format!("HAProxy has {:?}, not {wanted:?} alone", self.servers()))
    }

    /// The hook, as the settings of `server` have it.
    pub fn hook(&self, server: &Host, port: u16, rest: &[&str]) -> Vec<String> {
        let socket = format!("ipv4@{}:{ADMIN}", self.host.address());
        let address = format!("{}:{port}", server.address());
        let words = [
            "fastmig-hook",
            "haproxy",
            "--socket",
            &socket,
            "--backend",
            "web",
            "--server",
            "web",
            "--address",
            &address,
        ];
        words.iter().chain(rest).map(|word| (*word).to_owned()).collect()
    }

    /// The settings of `server` with the hook at every stage.
    pub fn settings(&self, server: &Host) -> String {
        let command = self.hook(server, PORT, &[]);
        at_every_stage(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// wrk, which asks for so many seconds.
    pub fn load(&self, seconds: u32) -> Result<Wrk> {
        let (url, time) = (format!("http://{}:{FRONT}/", self.host.address()), format!("{seconds}s"));
        self.host.cmd(["wrk", "-t2", "-c32", "--timeout", "60s", "-d", &time, &url]).spawn().map(Wrk)
    }
}

/// wrk at work.
#[derive(Debug)]
pub struct Wrk(Background);

/// What wrk has seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Requests that were answered.
    pub requests: u64,
    /// The longest that one of them took.
    pub longest: Duration,
}

impl Wrk {
    /// Whether it still asks.
    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// Waits until it has ended; fails when it has seen any failure.
    pub fn require_faultless(self) -> Result<Seen> {
        let output = self.0.wait(LIMIT * 4)?;
        judge(&output)
    }
}

fn judge(output: &Output) -> Result<Seen> {
    let text = output.out();
    ensure!(output.status.success(), "wrk failed: {text}{}", output.err());
    ensure!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "requests failed:\n{text}");
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let longest =
        text.lines().find_map(|line| time(line.trim().strip_prefix("Latency")?.split_whitespace().nth(2)?));
    let seen = requests.zip(longest).map(|(requests, longest)| Seen { requests, longest });
    seen.with_context(|| format!("wrk does not say what it saw:\n{text}"))
}

/// A time as wrk writes it.
fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn said(text: &str) -> Output {
        Output { status: ExitStatus::from_raw(0), stdout: text.into(), stderr: Vec::new() }
    }

    const TOLD: &str = "Running 8s test @ http://10.99.0.3:8000/\n  2 threads and 32 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
        Latency     4.38ms   20.06ms 318.40ms   98.53%\n    \
        Req/Sec    10.51k     2.36k   14.19k    70.00%\n  167462 requests in 8.01s, 137.35MB read\n";

    #[test]
    fn what_wrk_has_seen_is_read() {
        let seen = judge(&said(TOLD)).unwrap();
        assert_eq!(seen, Seen { requests: 167_462, longest: Duration::from_micros(318_400) });
        assert_eq!(time("1.20s"), Some(Duration::from_millis(1200)));
        assert_eq!(time("90.00us"), Some(Duration::from_micros(90)));
        assert_eq!(time("nan"), None);
    }

    #[test]
    fn a_failed_request_is_no_good_outcome() {
        for failure in
            ["  Socket errors: connect 0, read 1, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 3\n"]
        {
            assert!(judge(&said(&format!("{TOLD}{failure}"))).is_err(), "{failure}");
        }
        assert!(judge(&said("")).is_err());
    }
}
