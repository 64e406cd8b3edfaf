//! One move, from a running container to one that waits in standby.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::container::{Container, Setup};
use super::load::{Load, Traffic};
use super::migrating;
use super::peer::Peer;
use super::transfer::Receiver;
use super::{App, Facts};
use crate::framework::command::last_lines;
use crate::framework::Host;

/// Checkpoints of moves, in memory: hosts have a tmpfs there.
pub const IMAGES: &str = "/tmp/checkpoints";

/// Acknowledged requests before and after a move.
const ENOUGH: u64 = 300;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

const IMAGE_PORT: u16 = 7001;

/// How an application moves from the first container into the second; answers what FastMig reported.
pub type Way = fn(&Container, &Container) -> Result<Value>;

/// A live migration.
pub fn migrate(source: &Container, destination: &Container) -> Result<Value> {
    migrating::migrate(source, destination, &[])
}

/// Moves the application of `source`, with the files that it wrote, into `destination`: checkpoint to standby, copy, restore.
pub fn move_application(source: &Container, destination: &Container) -> Result<Value> {
    let image = format!("{IMAGES}/{}", source.id());
    let same_host = source.host.name() == destination.host.name();
    let same_container = same_host && source.id() == destination.id();
    for host in [&source.host, &destination.host] {
        host.cmd(["sh", "-ec", "mkdir -p -m 700 \"$1\"; rm -rf -- \"$2\"", "sh", IMAGES, &image]).ok()?;
    }
    let image_receiver = match same_host {
        true => None,
        false => Some(Receiver::new(&destination.host, IMAGE_PORT, IMAGES)?),
    };
    let first = destination.first_process()?;

    let checkpoint = source.checkpoint(&image)?;
    if let Some(receiver) = image_receiver {
        receiver.receive(&source.host, IMAGES, &[source.id()])?;
    }
    let restore = destination.restore(&image)?;

    if !same_container {
        source.require("standby")?;
    }
    destination.require("running")?;
    ensure!(destination.first_process()? == first, "PID 1 of the destination is another process");
    for host in [&source.host, &destination.host] {
        host.cmd(["rm", "-rf", "--", &image]).ok()?;
    }
    Ok(json!({ "checkpoint": checkpoint, "restore": restore }))
}

/// How an application fared that was moved under load.
#[derive(Debug)]
pub struct Journey {
    /// What was in it before.
    pub before: Facts,
    /// What was in it afterwards, when all that was acknowledged was found.
    pub after: Facts,
    /// What its clients saw.
    pub traffic: Traffic,
    /// What FastMig reported.
    pub moved: Value,
    /// The state of the source container in the end.
    pub source: String,
}

/// Runs `app` on `from`, keeps it busy, moves it to `to` and checks it there. `extra` are arguments of `ctr run`.
pub fn journey(
    app: &mut dyn App,
    from: &Arc<Host>,
    to: &Arc<Host>,
    extra: &[&str],
    way: Way,
) -> Result<Journey> {
    let mut peers = vec![Peer::new(from, app.port(), from)?];
    if from.name() != to.name() {
        peers.push(Peer::new(to, app.port(), from)?);
    }
    let journey = travel(app, [from, to], &peers, extra, way)?;
    ensure!(journey.traffic.reconnects > 0, "no client noticed the move: nothing was moved under load");
    Ok(journey)
}

/// As [`journey`], whose clients find it at `peers`: at the last one when it has moved.
pub(super) fn travel(
    app: &mut dyn App,
    [from, to]: [&Arc<Host>; 2],
    peers: &[Peer],
    extra: &[&str],
    way: Way,
) -> Result<Journey> {
    let setup = Setup::of(app.name()).with(app.options()).with(extra.iter().copied()).running(app.command());
    let source = Container::run(from, &format!("{}-1", app.name()), &setup)?;
    let destination = Container::run(to, &format!("{}-2", app.name()), &setup.in_standby())?;
    let last = peers.len() - 1;

    let before = app.fill(&peers[0]).with_context(|| told(&source))?;
    app.accompany(to, peers)?;
    let load = Load::start(app.clients(), peers);
    load.wait_for_more(0, ENOUGH, ANSWER_LIMIT).with_context(|| told(&source))?;
    let moved = way(&source, &destination)?;
    load.wait_for_more(last, ENOUGH, ANSWER_LIMIT).with_context(|| told(&destination))?;
    let traffic = load.stop()?;
    let after = app.verify(&peers[last], &traffic).with_context(|| told(&destination))?;
    let source_state = source.require("standby")?.application;
    destination.remove()?;
    source.remove()?;
    Ok(Journey { before, after, traffic, moved, source: source_state })
}

/// The end of what a container wrote, for whoever wonders why it does not answer.
fn told(container: &Container) -> String {
    let output = container.output().unwrap_or_default();
    let state = container.status().map_or_else(|error| error.to_string(), |status| status.application);
    format!(
        "container {} is {state}; it wrote:\n{}",
        container.id(),
        last_lines(&String::from_utf8_lossy(&output))
    )
}
