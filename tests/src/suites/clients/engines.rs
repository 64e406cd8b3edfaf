//! State crosses engines, for only the application travels: what ran under one client goes on under another, on another host.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use super::client::{Client, Setup, CTR, DOCKER, NERDCTL, PODMAN};
use super::container::{Container, CHECKPOINTS};
use super::row::{row, Row};
use super::stage;
use crate::apps::transfer::Receiver;
use crate::framework::{Case, Ctx, Generation, Host, Outcome};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "redis goes from docker on one host to podman on another, to containerd on the first, and back to docker",
        run: |ctx| travel(ctx, &[&PODMAN, &CTR, &DOCKER]).into(),
    },
    Case { name: "a container that allows less refuses an application that has more", run: |ctx| refused(ctx).into() },
    Case {
        name: "redis goes from docker on one host to nerdctl on another",
        run: |ctx| match NERDCTL.missing() {
            Some(reason) => Outcome::Skipped(reason),
            None => travel(ctx, &[&NERDCTL]).into(),
        },
    },
];

const IMAGE: &str = "redis";
const PORT: u16 = 7101;

/// A redis under docker is filled; it moves into a standby container of each client in turn, from host to host.
fn travel(ctx: &Ctx, way: &[&'static dyn Client]) -> Result<()> {
    let hosts = [stage::host(ctx, Generation::Trixie)?, stage::host(ctx, Generation::Forky)?];
    let mut row = row(IMAGE)?;
    let mut here = Container::run(&hosts[0], &DOCKER, &setup(row.as_ref(), &DOCKER, 0))?;
    here.wait_for_log(row.says())?;
    row.fill(&here)?;
    for (number, client) in (1..).zip(way) {
        let there = &hosts[number % 2];
        here = hop(here, there, *client, row.as_mut(), number)
            .with_context(|| format!("to {} on {}", client.program(), there.name()))?;
    }
    here.remove()
}

/// Options for a container that allows what docker's do by default: podman leaves three capabilities out, ctr sets
/// `no_new_privs`.
fn allow_as_docker(client: &dyn Client) -> Vec<String> {
    let options: &[&str] = match client.program() {
        "podman" => &["--cap-add", "AUDIT_WRITE,MKNOD,NET_RAW"],
        "ctr" => &["--allow-new-privs"],
        _ => &[],
    };
    options.iter().map(|option| (*option).to_owned()).collect()
}

/// podman's default capabilities are fewer than docker's.
fn refused(ctx: &Ctx) -> Result<()> {
    let host = stage::host(ctx, Generation::Trixie)?;
    let mut row = row("busybox")?;
    let shaped = |name: &str| {
        let mut setup = Setup::of("busybox", name, "fastmig");
        row.shape(&mut setup);
        setup
    };
    let from = Container::run(&host, &DOCKER, &shaped("more"))?;
    let to = Container::run(&host, &PODMAN, &shaped("less").in_standby())?;
    row.fill(&from)?;
    let path = from.fresh_checkpoint()?;
    from.checkpoint(&path)?;
    let told = format!("{:#}", to.restore(&path).err().context("it was taken in")?);
    ensure!(told.contains("CAP_MKNOD") && told.contains("--cap-add"), "{told}");
    to.expect("standby")?;
    from.restore(&path)?;
    row.verify(&from)?;
    to.remove()?;
    from.remove()
}

/// One move: the container that is left ends, as after any client's checkpoint; the next one waits already.
fn hop(
    from: Container,
    host: &Arc<Host>,
    client: &'static dyn Client,
    row: &mut dyn Row,
    number: usize,
) -> Result<Container> {
    let to = Container::run(host, client, &setup(row, client, number).in_standby())?;
    to.expect("standby")?;
    let path = from.fresh_checkpoint()?;
    to.fresh_checkpoint()?;
    let receiver = Receiver::new(host, PORT, CHECKPOINTS)?;
    from.fastmig("checkpoint", &["--image-path", &path])?;
    receiver.receive(&from.host, CHECKPOINTS, &[&from.name])?;
    from.wait_until_ended()?;
    to.restore(&path)?;
    row.verify(&to)?;
    from.remove()?;
    Ok(to)
}

fn setup(row: &dyn Row, client: &dyn Client, number: usize) -> Setup {
    let runtime = if client.program() == "ctr" { "io.containerd.fastmig.v1" } else { "fastmig" };
    let mut setup = Setup::of(IMAGE, &format!("travel-{number}"), runtime);
    row.shape(&mut setup);
    setup.options = allow_as_docker(client);
    setup
}
