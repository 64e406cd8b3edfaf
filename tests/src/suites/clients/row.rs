//! The seven images: how each is run, given state, and asked for it after it came back.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::client::{Network, Setup};
use super::container::{Container, SOON};
use crate::apps::load::{Load, Traffic};
use crate::apps::peer::Peer;
use crate::apps::{self, App};
use crate::framework::process::wait_until;

/// The images, in the order of the table.
pub(super) const IMAGES: &[&str] = &["busybox", "redis", "nginx", "postgres", "python", "node", "java"];

/// Requests that put state into a service.
const REQUESTS: u64 = 50;

/// Says that it begins, and becomes the command: for programs that say nothing by themselves.
const SPEAKING: &[&str] = &["sh", "-c", "echo begun; exec \"$@\"", "sh"];

/// Counts aloud; ends with a code of its own.
const TICKER: &str = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done";

/// One image at work.
pub(super) trait Row {
    /// How it is run, beyond its name and runtime.
    fn shape(&self, setup: &mut Setup);

    /// What its log tells when it has begun.
    fn says(&self) -> &'static str;

    /// Gives it state that must not be lost.
    fn fill(&mut self, container: &Container) -> Result<()>;

    /// Fails unless that state is there, and it goes on.
    fn verify(&mut self, container: &Container) -> Result<()>;

    /// The exit code of its orderly end.
    fn exit_code(&self) -> i32;
}

/// The row of `image`.
pub(super) fn row(image: &str) -> Result<Box<dyn Row>> {
    if image == "busybox" {
        return Ok(Box::new(Ticker::default()));
    }
    let app = apps::named(image).with_context(|| format!("there is no application {image}"))?;
    Ok(Box::new(Service { app, traffic: None }))
}

/// busybox: a shell that counts; its log is its state.
#[derive(Debug, Default)]
struct Ticker {
    ticks: u64,
}

impl Row for Ticker {
    fn shape(&self, setup: &mut Setup) {
        setup.command = ["sh", "-c", TICKER].map(String::from).to_vec();
    }

    fn says(&self) -> &'static str {
        "tick 3"
    }

    fn fill(&mut self, container: &Container) -> Result<()> {
        wait_until(SOON, || ticks(container).is_ok_and(|ticks| ticks > 10)).context("it does not count")?;
        self.ticks = ticks(container)?;
        Ok(())
    }

    fn verify(&mut self, container: &Container) -> Result<()> {
        let on = || ticks(container).is_ok_and(|ticks| ticks > self.ticks + 5);
        wait_until(SOON, on)
            .with_context(|| format!("it counted to {}, now it is at {:?}", self.ticks, ticks(container)))
    }

    fn exit_code(&self) -> i32 {
        7
    }
}

/// How far the shell has counted since it last began, no number left out.
fn ticks(container: &Container) -> Result<u64> {
    let logs = container.logs()?;
    let mut last = 0;
    // What follows the last line break may be half a number.
    let complete = logs.rsplit_once('\n').map_or("", |(complete, _)| complete);
    for number in complete.lines().filter_map(|line| line.strip_prefix("tick ")) {
        let number: u64 = number.trim().parse().with_context(|| format!("tick {number:?}"))?;
        ensure!(number == last + 1 || number == 1, "tick {number} follows {last}");
        last = number;
    }
    Ok(last)
}

/// A real application that answers on a port.
struct Service {
    app: Box<dyn App>,
    traffic: Option<Traffic>,
}

impl Service {
    fn peer(&self, container: &Container) -> Result<Peer> {
        Peer::new(&container.host, self.app.port(), &container.host)
    }

    fn speaks(&self) -> bool {
        matches!(self.app.name(), "redis" | "postgres")
    }
}

impl Row for Service {
    fn shape(&self, setup: &mut Setup) {
        setup.network = Network::Published(self.app.port());
        setup.mounts = self.app.options().iter().filter_map(|option| bind_of(option)).collect();
        setup.command = self.app.command();
        if !self.speaks() {
            let own = match self.app.name() {
                "nginx" => ["nginx", "-g", "daemon off;"].map(String::from).to_vec(),
                _ => self.app.command(),
            };
            setup.command = SPEAKING.iter().map(|word| (*word).to_owned()).chain(own).collect();
        }
    }

    fn says(&self) -> &'static str {
        match self.app.name() {
            "redis" => "Ready to accept connections",
            "postgres" => "database system is ready to accept connections",
            _ => "begun",
        }
    }

    fn fill(&mut self, container: &Container) -> Result<()> {
        let peer = self.peer(container)?;
        self.app.fill(&peer)?;
        let load = Load::start(self.app.clients(), &[peer]);
        load.wait_for_more(0, REQUESTS, Duration::from_secs(60))?;
        self.traffic = Some(load.stop()?);
        Ok(())
    }

    fn verify(&mut self, container: &Container) -> Result<()> {
        let peer = self.peer(container)?;
        let traffic = self.traffic.as_ref().context("it was given no state")?;
        self.app.verify(&peer, traffic).map(drop)
    }

    fn exit_code(&self) -> i32 {
        match self.app.name() {
            "redis" | "nginx" | "postgres" => 0,
            // By the signal: below the init it has its ordinary meaning.
            _ => 128 + 15,
        }
    }
}

/// The directories in an option of `ctr run` such as `type=bind,src=/a,dst=/b,options=rbind:ro`.
fn bind_of(option: &str) -> Option<(String, String)> {
    let value = |key: &str| option.split(',').find_map(|part| part.strip_prefix(key)).map(str::to_owned);
    Some((value("src=")?, value("dst=")?))
}
