//! Memory that is mapped, moved, unmapped, protected, discarded, forked and shared while it moves.

use anyhow::{ensure, Context, Result};

use super::stage::{frozen, moves};
use crate::apps::container::Container;
use crate::apps::migrating::migrate;
use crate::apps::moving::journey;
use crate::apps::warm_postgres;
use crate::framework::{Case, Ctx};
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};

pub(super) const CASES: &[Case] = &[
    Case { name: "memory moves that changes at random", run: |ctx| seeds(ctx).into() },
    Case {
        name: "memory that changes at random moves there and back",
        run: |ctx| there_and_back(ctx).into(),
    },
    Case { name: "processes execute and end in the middle", run: |ctx| short_lives(ctx).into() },
    Case {
        name: "shared memory moves, of all kinds",
        run: |ctx| {
            moves(ctx, &["shared", "--mib", "32", "--processes", "4", "--writes", "50"], 1).map(drop).into()
        },
    },
    Case {
        name: "shared memory without a file system moves while it is written",
        run: |ctx| {
            moves(
                ctx,
                &["shared", "--mib", "128", "--processes", "4", "--writes", "50", "--kinds", FILELESS],
                2,
            )
            .map(drop)
            .into()
        },
    },
    Case {
        name: "PostgreSQL moves with a GiB of shared buffers",
        run: |ctx| shared_buffers(ctx, 1024).into(),
    },
];

/// With pgbench and a client that inserts rows; what it waits for is the gap that they see.
fn shared_buffers(ctx: &Ctx, mib: u32) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["postgres"])?;
    }
    let mut app = warm_postgres(mib);
    let way = |from: &Container, to: &Container| migrate(from, to, &["--strategy", "pre-copy"]);
    let journey = journey(app.as_mut(), &a, &b, &["--seccomp"], way)?;
    let report = &journey.moved;
    println!("    clients waited {} ms, {}", journey.traffic.gap.as_millis(), frozen(report));
    let sent = report["rounds"][0]["bytes"].as_u64().context("no round")?;
    ensure!(sent > (u64::from(mib) * 3 / 4) << 20, "its buffers did not travel in rounds: {report}");
    let last = report["last_round_bytes"].as_u64().context("no last round")?;
    ensure!(last < sent / 4, "its buffers travelled in the freeze: {report}");
    for host in [&a, &b] {
        host.forget_image("postgres")?;
        nothing_is_left(host)?;
    }
    Ok(())
}

/// The kinds of shared memory that travel in rounds.
const FILELESS: &str = "anonymous,memfd,memfd-unmapped";

/// Each seed is another history. There are as many as `FASTMIG_SEEDS` says, or those between two: `59-59`.
const SEEDS: u64 = 5;
const MOVES: usize = 6;

fn seeds(ctx: &Ctx) -> Result<()> {
    let wanted = std::env::var("FASTMIG_SEEDS").unwrap_or_default();
    let (first, last) = match wanted.split_once('-') {
        Some((first, last)) => (first.parse()?, last.parse()?),
        None => (1, wanted.parse().unwrap_or(SEEDS)),
    };
    for seed in first..=last {
        churn(ctx, seed, &["--mib", "512"], 1).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

fn there_and_back(ctx: &Ctx) -> Result<()> {
    churn(ctx, 100, &["--mib", "256"], MOVES)
}

/// Twenty forks a second, as long as there are fewer than eight children.
fn short_lives(ctx: &Ctx) -> Result<()> {
    churn(ctx, 200, &["--mib", "256", "--children", "8", "--fork-ms", "50", "--pause-us", "2000"], 2)
}

fn churn(ctx: &Ctx, seed: u64, options: &[&str], times: usize) -> Result<()> {
    let seed = seed.to_string();
    let moved = moves(ctx, &[&["churn", "--seed", &seed], options].concat(), times)?;
    ensure!(moved.len() == times, "{} moves", moved.len());
    Ok(())
}
