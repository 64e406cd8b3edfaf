//! HAProxy on a third host, wrk before it and nginx behind it: nginx moves, and no request fails.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::apps::balancer::{Balancer, FRONT, PORT};
use crate::apps::container::{Container, Setup};
use crate::apps::migrating::{command, migrate};
use crate::framework::process::wait_until;
use crate::framework::settings::{facts, hook, Settings};
use crate::framework::{Case, Ctx, Generation, Host};
use crate::suites::migration::stage::{pair, pair_of_daemons, with_images};

pub(super) const CASES: &[Case] = &[
    Case { name: "no request fails while HAProxy's server moves", run: |ctx| moves(ctx).into() },
    Case { name: "a migration that fails gives HAProxy its server back", run: |ctx| aborts(ctx).into() },
    Case {
        name: "requests that do not end keep the application where it is",
        run: |ctx| undrained(ctx).into(),
    },
];

const LIMIT: Duration = Duration::from_secs(30);

fn balancer(ctx: &Ctx, server: &Host, port: u16) -> Result<Balancer> {
    Balancer::up(&ctx.session()?.host("c", Generation::Trixie)?, server, port)
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
    let balancer = balancer(ctx, &a, PORT)?;
    let _settings = (Settings::new(&a, &balancer.settings(&a))?, Settings::new(&b, &balancer.settings(&b))?);
    let load = balancer.load(20)?;
    std::thread::sleep(Duration::from_secs(2));
    migrate(&here, &there, &[])?;
    balancer.require_at(&b, PORT)?;
    std::thread::sleep(Duration::from_secs(1));
    migrate(&there, &here, &[])?;
    balancer.require_at(&a, PORT)?;
    ensure!(load.require_faultless()?.requests > 1000, "hardly any request was made");
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
    let balancer = balancer(ctx, &a, PORT)?;
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
    ensure!(load.require_faultless()?.requests > 100, "hardly any request was made");
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
    let balancer = balancer(ctx, &a, PORT)?;
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
