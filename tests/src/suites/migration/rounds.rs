//! From a to b and back, again and again: nothing is lost, and nothing grows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::stage::{nothing_is_left, pair_of_daemons, with_images};
use crate::apps::container::{Container, Setup};
use crate::apps::load::Load;
use crate::apps::migrating::migrate;
use crate::apps::{self, peer::Peer};
use crate::framework::{Case, Ctx, Host};

pub(super) const CASES: &[Case] = &[Case {
    name: "fifty moves there and back lose nothing and leave nothing",
    run: |ctx| fifty(ctx).into(),
}];

const MOVES: usize = 50;
/// The first moves fill caches.
const WARM: usize = 10;
/// So many looks at the begin, and at the end: what the allocator keeps differs from move to move by as much as a redis.
const LOOKS: usize = 10;
const MORE: u64 = 50;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// What a daemon may grow by from the most of its first looks to the least of its last, in KiB: less than one redis.
const GROWTH: u64 = 12 * 1024;

/// What a daemon holds.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    resident: u64,
}

impl Holdings {
    fn or_more(self, other: Self) -> Self {
        self.by(other, usize::max, u64::max)
    }

    fn or_less(self, other: Self) -> Self {
        self.by(other, usize::min, u64::min)
    }

    fn by(self, other: Self, count: fn(usize, usize) -> usize, size: fn(u64, u64) -> u64) -> Self {
        Self {
            descriptors: count(self.descriptors, other.descriptors),
            threads: count(self.threads, other.threads),
            resident: size(self.resident, other.resident),
        }
    }
}

fn holdings(host: &Host) -> Result<Holdings> {
    let process = format!("/proc/{}", host.fastmigd_pid()?);
    let count = |name: &str| -> Result<usize> {
        Ok(host.cmd(["ls", &format!("{process}/{name}")]).ok()?.lines().count())
    };
    let status = host.cmd(["cat", &format!("{process}/status")]).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let resident = resident.context("a process without memory")?.trim().parse()?;
    Ok(Holdings { descriptors: count("fd")?, threads: count("task")?, resident })
}

fn fifty(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["redis"])?;
    }
    let mut app = apps::named("redis").context("there is no redis")?;
    let here = Container::run(&a, "there-and-back-1", &Setup::of("redis"))?;
    let there = Container::run(&b, "there-and-back-2", &Setup::of("redis").in_standby())?;
    let peers = [Peer::new(&a, app.port(), &a)?, Peer::new(&b, app.port(), &a)?];
    app.fill(&peers[0])?;
    let load = Load::start(app.clients(), &peers);
    let mut frozen = Vec::new();
    let (mut before, mut last): (Vec<_>, Vec<_>) = (held(&a, &b)?, Vec::new());
    for round in 0..MOVES {
        if (WARM..WARM + LOOKS).contains(&round) {
            before = before.into_iter().zip(held(&a, &b)?).map(|(one, other)| one.or_more(other)).collect();
        }
        if round >= MOVES - LOOKS {
            last.push(held(&a, &b)?);
        }
        let (from, to, at) = if round % 2 == 0 { (&here, &there, 0) } else { (&there, &here, 1) };
        load.wait_for_more(at, MORE, ANSWER_LIMIT).with_context(|| format!("before move {round}"))?;
        let report = migrate(from, to, &[]).with_context(|| format!("move {round}"))?;
        frozen.extend(report["frozen_ms"].as_u64());
    }
    load.wait_for_more(0, MORE, ANSWER_LIMIT)?;
    let traffic = load.stop()?;
    app.verify(&peers[0], &traffic)?;
    frozen.sort_unstable();
    println!("    frozen {} to {} ms, median {}", frozen[0], frozen[MOVES - 1], frozen[MOVES / 2]);
    last.push(held(&a, &b)?);
    for (host, before) in before.iter().enumerate() {
        let looks = last.iter().map(|held| held[host]);
        let after = looks.reduce(Holdings::or_less).context("nobody looked")?;
        println!("    a daemon held {before:?}, and then {after:?}");
        ensure!(after.descriptors <= before.descriptors + 2, "descriptors stay open");
        ensure!(after.threads <= before.threads + 8, "threads stay");
        ensure!(after.resident <= before.resident + GROWTH, "its memory grows");
    }
    here.remove()?;
    there.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

fn held(a: &Arc<Host>, b: &Arc<Host>) -> Result<Vec<Holdings>> {
    [a, b].into_iter().map(|host| holdings(host)).collect()
}
