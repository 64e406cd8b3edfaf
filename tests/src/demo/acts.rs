//! What is shown: each act moves one application, and answers the facts of its line of JSON.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::stage::Stage;
use crate::apps::address::Addressed;
use crate::apps::balancer::{Balancer, PORT};
use crate::apps::container::{Container, Setup};
use crate::apps::moving::{journey, migrate, Journey};
use crate::apps::peer::Peer;
use crate::apps::{self, migrating, Facts};
use crate::framework::settings::Settings;

/// One thing to see.
pub(super) struct Act {
    /// Its name: that of the application, mostly.
    pub(super) name: &'static str,
    /// The image that it needs.
    pub(super) image: &'static str,
    /// What there is to see.
    pub(super) about: &'static str,
    pub(super) play: fn(&Stage) -> Result<Facts>,
}

/// All of them, the main one last.
pub(super) const ACTS: &[Act] = &[
    Act {
        name: "nginx",
        image: "nginx",
        about: "HAProxy before it lets the requests of wrk wait while it moves; none may fail",
        play: balanced,
    },
    Act {
        name: "postgres",
        image: "postgres",
        about: "pgbench runs, and a client writes rows before, during and after the move; both connect again",
        play: |stage| application(stage, "postgres"),
    },
    Act {
        name: "node",
        image: "node",
        about: "a client counts with it, and connects again",
        play: |stage| application(stage, "node"),
    },
    Act {
        name: "java",
        image: "java",
        about: "a client counts with it, and connects again",
        play: |stage| application(stage, "java"),
    },
    Act {
        name: "python",
        image: "python",
        about: "it watches itself how long it stands still",
        play: |stage| application(stage, "python"),
    },
    Act {
        name: "connection",
        image: "redis",
        about: "redis moves with its address; a writing client keeps its one connection",
        play: connection,
    },
    Act {
        name: "redis",
        image: "redis",
        about: "a client writes before, during and after the move, and connects again",
        play: |stage| application(stage, "redis"),
    },
];

/// wrk asks for so long, in seconds; the move begins after a part of it.
const ASKING: u32 = 8;
const BEFORE: Duration = Duration::from_secs(2);
const START_LIMIT: Duration = Duration::from_secs(30);

/// A move that clients notice, and after which they find everything that was acknowledged.
fn application(stage: &Stage, name: &str) -> Result<Facts> {
    let mut app = apps::named(name).with_context(|| format!("there is no application {name}"))?;
    app.prepare(&stage.session)?;
    Ok(facts(journey(app.as_mut(), &stage.a, &stage.b, &[], migrate)?))
}

/// The same, but the clients keep their connections.
fn connection(stage: &Stage) -> Result<Facts> {
    let mut app = apps::named("redis").context("there is no redis")?;
    let addressed = Addressed::new(&stage.a, &stage.b)?;
    let facts = facts(addressed.journey(app.as_mut(), &stage.c)?);
    // Before the daemons are started anew for other settings.
    stage.require_nothing_left()?;
    Ok(facts)
}

/// A move without a failed request.
fn balanced(stage: &Stage) -> Result<Facts> {
    let (a, b) = (&stage.a, &stage.b);
    let balancer = Balancer::up(&stage.c, a, PORT)?;
    let _settings = (Settings::new(a, &balancer.settings(a))?, Settings::new(b, &balancer.settings(b))?);
    let source = Container::run(a, "nginx-1", &Setup::of("nginx"))?;
    let destination = Container::run(b, "nginx-2", &Setup::of("nginx").in_standby())?;
    Peer::new(a, PORT, &stage.c)?.wait_until_up(START_LIMIT)?;
    let mut load = balancer.load(ASKING)?;
    sleep(BEFORE);
    let report = migrating::migrate(&source, &destination, &[])?;
    ensure!(load.is_running(), "wrk had ended before the application moved");
    balancer.require_at(b, PORT)?;
    let seen = load.require_faultless()?;
    let source_state = source.require("standby")?.application;
    destination.remove()?;
    source.remove()?;
    stage.require_nothing_left()?;
    let mut line = Facts::new();
    line.insert("requests".into(), json!(seen.requests));
    line.insert("failed".into(), json!(0));
    line.insert("gap_ms".into(), milliseconds(seen.longest));
    add_move(&mut line, &report, source_state);
    Ok(line)
}

fn facts(journey: Journey) -> Facts {
    let mut line = journey.before;
    line.extend(journey.after);
    line.insert("reconnects".into(), json!(journey.traffic.reconnects));
    line.insert("gap_ms".into(), milliseconds(journey.traffic.gap));
    add_move(&mut line, &journey.moved, journey.source);
    line
}

/// What FastMig says of the move.
fn add_move(line: &mut Facts, report: &Value, source_state: String) {
    for name in ["frozen_ms", "total_ms", "bytes"] {
        line.insert(name.into(), report[name].clone());
    }
    line.insert("source_container".into(), source_state.into());
    // A move with another PID 1 in the end is an error.
    line.insert("destination_pid1_kept".into(), json!(true));
}

fn milliseconds(time: Duration) -> Value {
    json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
