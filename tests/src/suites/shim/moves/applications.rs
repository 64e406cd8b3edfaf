//! Real applications, unmodified, whose clients never stop asking.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::hosts;
use crate::apps;
use crate::apps::container::{Container, Setup};
use crate::apps::load::Load;
use crate::apps::moving::{self, move_application};
use crate::apps::peer::Peer;
use crate::framework::{Ctx, Generation};
use crate::suites::shim::stage::nothing_is_left;

const CYCLES: usize = 10;

/// Images that are large, and that one case alone needs.
const LARGE: &[&str] = &["postgres", "node", "java"];

pub(super) fn journey(ctx: &Ctx, name: &str, generations: [Generation; 2], extra: &[&str]) -> Result<()> {
    let mut app = apps::named(name).with_context(|| format!("there is no application {name}"))?;
    let [from, to] = hosts(ctx, generations, name)?;
    app.prepare(ctx.session()?)?;
    let journey = moving::journey(app.as_mut(), &from, &to, extra, move_application)?;
    println!(
        "    gap {} ms, frozen {} ms, restored in {} ms",
        journey.traffic.gap.as_millis(),
        journey.moved["checkpoint"]["frozen_ms"],
        journey.moved["restore"]["total_ms"]
    );
    for host in [&from, &to] {
        if LARGE.contains(&name) {
            host.forget_image(name)?;
        }
        nothing_is_left(host)?;
    }
    Ok(())
}

/// Ten times in place: PID 1 stays, and no acknowledged write is lost.
pub(super) fn cycles(ctx: &Ctx, generation: Generation) -> Result<()> {
    let [host, _] = hosts(ctx, [generation; 2], "redis")?;
    let mut app = apps::named("redis").context("there is no redis")?;
    let container = Container::run(&host, "cycles", &Setup::of("redis"))?;
    let peer = Peer::new(&host, app.port(), &host)?;
    app.fill(&peer)?;
    let first = container.first_process()?;
    let load = Load::start(app.clients(), std::slice::from_ref(&peer));
    for cycle in 1..=CYCLES {
        load.wait_for_more(0, 100, Duration::from_secs(30)).with_context(|| format!("cycle {cycle}"))?;
        move_application(&container, &container).with_context(|| format!("cycle {cycle}"))?;
    }
    load.wait_for_more(0, 100, Duration::from_secs(30))?;
    let traffic = load.stop()?;
    app.verify(&peer, &traffic)?;
    let status = container.require("running")?;
    ensure!(status.runs as usize == CYCLES + 1, "the application came up {} times", status.runs);
    ensure!(container.first_process()? == first, "PID 1 is another process");
    container.remove()?;
    nothing_is_left(&host)
}
