//! HAProxy on a third host, wrk before it and nginx behind it: nginx moves, and no request fails.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::settings::{at_every_stage, facts, hook, Settings};
use crate::apps::container::{Container, Setup};
use crate::apps::migrating::{command, migrate};
use crate::framework::process::wait_until;
use crate::framework::{Background, Case, Ctx, Generation, Host};
use crate::suites::migration::stage::{pair, pair_of_daemons, with_images};

pub(super) const CASES: &[Case] = &[
    Case { name: "no request fails while HAProxy's server moves", run: |ctx| moves(ctx).into() },
    Case { name: "a migration that fails gives HAProxy its server back", run: |ctx| aborts(ctx).into() },
    Case {
        name: "requests that do not end keep the application where it is",
        run: |ctx| undrained(ctx).into(),
    },
];

const FRONT: u16 = 8000;
const ADMIN: u16 = 9999;
const LIMIT: Duration = Duration::from_secs(30);
const PORT: u16 = 80;

/// HAProxy on a host of its own, for a server on another.
struct Balancer {
    host: Arc<Host>,
    process: Background,
}

impl Balancer {
    fn up(ctx: &Ctx, server: &Host, port: u16) -> Result<Self> {
        let host = ctx.session()?.host("c", Generation::Trixie)?;
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
    fn tell(&self, command: &str) -> Result<String> {
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
    fn require_at(&self, server: &Host, port: u16) -> Result<()> {
        let wanted = format!("web {}:{port} 0", server.address());
        // The stand-in goes when the last connection that waited has ended.
        let alone = wait_until(LIMIT, || self.servers().is_ok_and(|servers| servers == [wanted.clone()]));
        alone.with_context(|| format!("HAProxy has {:?}, not {wanted:?} alone", self.servers()))
    }

    /// The hook, as the settings of `server` have it.
    fn hook(&self, server: &Host, port: u16, rest: &[&str]) -> Vec<String> {
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

    fn settings(&self, server: &Host) -> String {
        let command = self.hook(server, PORT, &[]);
        at_every_stage(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// wrk, asking all the time.
    fn load(&self, seconds: u32) -> Result<Background> {
        let (url, time) = (format!("http://{}:{FRONT}/", self.host.address()), format!("{seconds}s"));
        self.host.cmd(["wrk", "-t2", "-c32", "--timeout", "60s", "-d", &time, &url]).spawn()
    }
}

/// Fails when wrk has seen any failure; answers how many requests it made.
fn require_faultless(load: Background) -> Result<u64> {
    let output = load.wait(LIMIT * 4)?;
    let text = output.out();
    ensure!(output.status.success(), "wrk failed: {text}{}", output.err());
    ensure!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "requests failed:\n{text}");
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    requests.with_context(|| format!("wrk says nothing of requests:\n{text}"))
}

fn require_no_holder(host: &Host) -> Result<()> {
    let gone =
        || host.cmd(["pgrep", "-f", "haproxy-holder"]).output().is_ok_and(|found| !found.status.success());
    wait_until(LIMIT, gone).with_context(|| format!("what held connections is still on host {}", host.name()))
}

fn moves(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["nginx"])?;
    }
    let here = Container::run(&a, "web", &Setup::of("nginx"))?;
    let there = Container::run(&b, "web", &Setup::of("nginx").in_standby())?;
    let balancer = Balancer::up(ctx, &a, PORT)?;
    let _settings = (Settings::new(&a, &balancer.settings(&a))?, Settings::new(&b, &balancer.settings(&b))?);
    let load = balancer.load(20)?;
    std::thread::sleep(Duration::from_secs(2));
    migrate(&here, &there, &[])?;
    balancer.require_at(&b, PORT)?;
    std::thread::sleep(Duration::from_secs(1));
    migrate(&there, &here, &[])?;
    balancer.require_at(&a, PORT)?;
    ensure!(require_faultless(load)? > 1000, "hardly any request was made");
    for host in [&a, &b] {
        require_no_holder(host)?;
    }
    here.remove()?;
    there.remove()
}

fn aborts(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["nginx"])?;
    }
    let here = Container::run(&a, "web", &Setup::of("nginx"))?;
    let there = Container::run(&b, "web", &Setup::of("nginx").in_standby())?;
    let balancer = Balancer::up(ctx, &a, PORT)?;
    let failing = hook("pre-restore", &["sh", "-c", "sleep 0.5; exit 1"], "");
    let _settings = (Settings::new(&a, &balancer.settings(&a))?, Settings::new(&b, &failing)?);
    let load = balancer.load(8)?;
    std::thread::sleep(Duration::from_secs(1));
    let failed = command(&here, &there, &[]).output()?;
    let said = failed.out() + &failed.err();
    ensure!(
        !failed.status.success() && said.contains("pre-restore"),
        "a failing hook did not stop it: {said}"
    );
    balancer.require_at(&a, PORT)?;
    ensure!(require_faultless(load)? > 100, "hardly any request was made");
    require_no_holder(&a)?;
    here.require("running")?;
    there.require("standby")?;
    here.remove()?;
    there.remove()
}

/// Answers after as many seconds as the path says.
const SLOW: &str = "
import socket, threading, time
def serve(c):
    f = c.makefile('rb')
    while True:
        line = f.readline()
        if not line: break
        while f.readline().strip(): pass
        time.sleep(float(line.split()[1][1:] or 0))
        c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok')
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('0.0.0.0', 8081)); s.listen()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

fn undrained(ctx: &Ctx) -> Result<()> {
    const PORT: u16 = 8081;
    let (a, _) = pair(ctx)?;
    let server = a.cmd(["python3", "-c", SLOW]).timeout(LIMIT * 4).spawn()?;
    let balancer = Balancer::up(ctx, &a, PORT)?;
    let get = |path: &str| {
        let url = format!("http://{}:{FRONT}/{path}", balancer.host.address());
        balancer.host.cmd(["curl", "-sf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", &url])
    };
    ensure!(get("").ok()? == "ok", "no answer");
    let slow = get("6").spawn()?;
    let is_busy = || balancer.tell("show stat web 4 -1").is_ok_and(|stat| stat.contains("web,web,0,0,1,"));
    wait_until(LIMIT, is_busy).context("the slow request does not begin")?;

    let command = balancer.hook(&a, PORT, &["--drain", "1"]);
    let failed = a.cmd(command.clone()).stdin(facts("pre-checkpoint", "leaving")).output()?;
    ensure!(!failed.status.success(), "drained although a request is under way");
    ensure!(failed.err().contains("had not ended after 1 s"), "the reason is not told: {}", failed.err());
    ensure!(get("").ok()? == "ok", "no answer after an abort");
    let slow = slow.wait(LIMIT)?;
    ensure!(slow.out() == "ok", "the slow request was cut: {}", slow.err());
    balancer.require_at(&a, PORT)?;

    let wrong = balancer.hook(&a, PORT + 1, &[]);
    let refused = a.cmd(wrong).stdin(facts("pre-checkpoint", "leaving")).output()?;
    ensure!(refused.err().contains("--address is wrong"), "another server is held: {}", refused.err());
    drop(server);
    require_no_holder(&a)
}
