//! An address moves between two hosts, and a client on a third keeps its connection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::apps;
use crate::apps::address::{give_address, has_address, hooks, take_address, Addressed, SERVICE};
use crate::apps::container::{Container, Setup};
use crate::apps::conversation::{self, CLIENT, SERVER};
use crate::apps::migrating::{command, migrate};
use crate::framework::process::wait_until;
use crate::framework::settings::{facts, hook, Settings};
use crate::framework::{Background, Case, Ctx, Generation, Host};
use crate::suites::migration::stage::{nothing_is_left, pair, pair_of_daemons, with_images};

pub(super) const CASES: &[Case] = &[
    Case { name: "a connection lives on where its address has moved", run: |ctx| moves(ctx).into() },
    Case {
        name: "redis keeps its writer's connection where its address has moved",
        run: |ctx| writes_on(ctx).into(),
    },
    Case { name: "an address comes back from a move that failed", run: |ctx| comes_back(ctx).into() },
    Case { name: "an address is mute until it is announced", run: |ctx| mute(ctx).into() },
];

const SOON: Duration = Duration::from_secs(30);
const IMAGES: &str = "/tmp/network";

/// Host a has the service and its address, host b waits, the client is on host c.
struct Scene {
    a: Arc<Host>,
    b: Arc<Host>,
    here: Container,
    there: Container,
    client: Background,
    watcher: Arc<Host>,
}

impl Scene {
    fn up(ctx: &Ctx) -> Result<Self> {
        let (a, b) = pair(ctx)?;
        let watcher = ctx.session()?.host("c", Generation::Trixie)?;
        for host in [&a, &b] {
            with_images(host, &["python"])?;
            host.sh(&format!("rm -rf {IMAGES}; mkdir -m 700 {IMAGES}")).ok()?;
        }
        give_address(&a)?;
        let setup = Setup::of("python").running(["python3", "-c", SERVER]);
        let here = Container::run(&a, "counting", &setup)?;
        let there = Container::run(&b, "counting", &setup.in_standby())?;
        a.sh("for i in $(seq 200); do ss -ltn | grep -q :7777 && exit; sleep 0.1; done; exit 1").ok()?;
        let client = watcher.cmd(["python3", "-c", CLIENT, SERVICE]).timeout(SOON * 10);
        let mut client = client.spawn()?;
        client.wait_for_output("heard 5\n", SOON)?;
        Ok(Self { a, b, here, there, client, watcher })
    }

    fn require_alive(&mut self) -> Result<()> {
        conversation::require_alive(&mut self.client)
    }

    /// Everything is as before but for where the address is.
    fn require_at(&self, host: &Host) -> Result<()> {
        for other in [&self.a, &self.b] {
            let has_it = has_address(other)?;
            ensure!(
                has_it == (other.name() == host.name()),
                "host {}: address there: {has_it}",
                other.name()
            );
            let tables = other.cmd(["nft", "list", "tables"]).ok()?;
            ensure!(!tables.contains("fastmig-"), "host {} keeps {tables}", other.name());
        }
        let mac = host.cmd(["cat", "/sys/class/net/eth0/address"]).ok()?;
        let known = self.watcher.cmd(["ip", "neigh", "show", SERVICE]).ok()?;
        ensure!(known.contains(mac.trim()), "the client's host knows {known:?}, not {mac:?}");
        Ok(())
    }

    fn down(self) -> Result<()> {
        drop(self.client);
        for host in [&self.a, &self.b] {
            take_address(host)?;
            host.cmd(["rm", "-rf", IMAGES]).ok()?;
        }
        self.here.remove()?;
        self.there.remove()
    }
}

fn moves(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    let _settings = (Settings::new(&a, &hooks())?, Settings::new(&b, &hooks())?);
    let mut scene = Scene::up(ctx)?;
    migrate(&scene.here, &scene.there, &["--tcp", "keep"])?;
    scene.require_alive()?;
    scene.require_at(&b)?;
    migrate(&scene.there, &scene.here, &["--tcp", "keep"])?;
    scene.require_alive()?;
    scene.require_at(&a)?;
    scene.down()
}

/// One client, one connection, and every write that was acknowledged is there.
fn writes_on(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    let client = ctx.session()?.host("c", Generation::Trixie)?;
    for host in [&a, &b] {
        with_images(host, &["redis"])?;
    }
    let mut app = apps::named("redis").context("there is no redis")?;
    let addressed = Addressed::new(&a, &b)?;
    let journey = addressed.journey(app.as_mut(), &client)?;
    println!("    the client waited {} ms at most", journey.traffic.gap.as_millis());
    for host in [&a, &b] {
        nothing_is_left(host)?;
    }
    Ok(())
}

fn comes_back(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    let failing = hooks() + &hook("pre-restore", &["false"], "");
    let _settings = (Settings::new(&a, &hooks())?, Settings::new(&b, &failing)?);
    let mut scene = Scene::up(ctx)?;
    // The destination has prepared when it fails; the source may have let go.
    let failed = command(&scene.here, &scene.there, &["--tcp", "keep"]).output()?;
    ensure!(!failed.status.success(), "a failing hook did not stop it: {}", failed.out());
    scene.require_alive()?;
    scene.require_at(&a)?;

    let image = format!("{IMAGES}/counting");
    scene.here.operate("checkpoint", &["--standby", "--tcp-established", "--image-path", &image])?;
    ensure!(!has_address(&a)?, "the address stays although the application has gone");
    scene.here.operate("restore", &["--tcp-established", "--image-path", &image])?;
    scene.require_alive()?;
    scene.require_at(&a)?;
    scene.down()
}

/// For both families: while host a answers, host b has the address and nobody sees it.
fn mute(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair(ctx)?;
    let client = ctx.session()?.host("c", Generation::Trixie)?;
    for (service, own) in [("10.99.0.60/24", None), ("2001:db8::60/64", Some("2001:db8::3/64"))] {
        let ip = service.split('/').next().unwrap_or(service);
        let call = |host: &Host, stage: &str, direction: &str| -> Result<()> {
            let command = ["fastmig-hook", "network-move", "--address", service, "--device", "eth0"];
            host.cmd(command).stdin(facts(stage, direction)).ok().map(drop)
        };
        let answered = |from: &Host, source: &[&str]| -> Result<bool> {
            let ping = [&["ping", "-c1", "-W1"], source, &[ip]].concat();
            Ok(from.cmd(ping).output()?.status.success())
        };
        let mac = |host: &Host| host.cmd(["cat", "/sys/class/net/eth0/address"]).ok();
        let known = || client.cmd(["ip", "neigh", "show", ip]).ok();

        let add = |host: &Host, address: &str| {
            host.cmd(["ip", "addr", "add", address, "dev", "eth0", "nodad"]).ok().map(drop)
        };
        own.map_or(Ok(()), |own| add(&client, own))?;
        add(&a, service)?;
        call(&a, "pre-checkpoint", "leaving")?;
        // Twice is as good as once.
        call(&b, "pre-restore", "arriving")?;
        call(&b, "pre-restore", "arriving")?;
        for _ in 0..5 {
            client.cmd(["ip", "neigh", "flush", "all"]).ok()?;
            ensure!(answered(&client, &[])?, "{ip} does not answer while host b prepares");
            ensure!(known()?.contains(mac(&a)?.trim()), "host b answers for {ip}: {}", known()?);
        }
        let out = ["ping", "-c1", "-W1", "-I", ip, if own.is_some() { "2001:db8::3" } else { "10.99.0.3" }];
        ensure!(!b.cmd(out).output()?.status.success(), "host b speaks as {ip}");
        ensure!(known()?.contains(mac(&a)?.trim()), "host b was seen as {ip}: {}", known()?);

        call(&a, "post-checkpoint", "leaving")?;
        call(&a, "post-checkpoint", "leaving")?;
        call(&b, "post-restore", "arriving")?;
        let learnt = || known().is_ok_and(|known| mac(&b).is_ok_and(|mac| known.contains(mac.trim())));
        wait_until(SOON, learnt)
            .with_context(|| format!("nobody learns where {ip} is now: {:?}", known()))?;
        ensure!(answered(&client, &[])?, "{ip} does not answer from host b");

        call(&b, "aborted", "arriving")?;
        call(&b, "aborted", "arriving")?;
        call(&a, "aborted", "leaving")?;
        ensure!(answered(&client, &[])?, "{ip} does not answer from host a again");
        a.cmd(["ip", "addr", "del", service, "dev", "eth0"]).ok()?;
        own.map_or(Ok(()), |own| client.cmd(["ip", "addr", "del", own, "dev", "eth0"]).ok().map(drop))?;
        let refused = a
            .cmd(["fastmig-hook", "network-move", "--address", service, "--device", "eth0"])
            .stdin(facts("pre-checkpoint", "leaving"))
            .output()?;
        ensure!(
            refused.err().contains("cannot move from here"),
            "an absent address moves: {}",
            refused.err()
        );
    }
    Ok(())
}
