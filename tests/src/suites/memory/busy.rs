//! Real applications whose memory never rests: redis that is flooded and forks, and heaps under garbage collectors.

use anyhow::{ensure, Context, Result};

use super::stage::frozen;
use crate::apps::container::Container;
use crate::apps::heap::Engine;
use crate::apps::memory::MIGRATE;
use crate::apps::migrating::migrate;
use crate::apps::moving::journey;
use crate::apps::{busy_heap, flooded_redis, App};
use crate::framework::{Case, Ctx};
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "redis moves that is flooded and saves itself",
        run: |ctx| moves(ctx, flooded_redis(200)).into(),
    },
    Case {
        name: "a JVM moves with a heap of 1 GiB under garbage collection",
        run: |ctx| moves(ctx, busy_heap(Engine::Java, 512)).into(),
    },
    Case {
        name: "nodejs moves while it allocates",
        run: |ctx| moves(ctx, busy_heap(Engine::Node, 192)).into(),
    },
];

/// What may be left to CRIU, and so to the freeze, of any of them: what they have of mapped files, and small mappings.
const LEFT_TO_CRIU: u64 = 32 << 20;

/// Once, every page compared, and then all that it knows.
fn moves(ctx: &Ctx, mut app: Box<dyn App>) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    let image = app.name();
    for host in [&a, &b] {
        with_images(host, &[image])?;
    }
    app.prepare(ctx.session()?)?;
    let way = |from: &Container, to: &Container| migrate(from, to, MIGRATE);
    let journey = journey(app.as_mut(), &a, &b, &[], way)?;
    let report = &journey.moved;
    let rounds = report["rounds"].as_array().context("no rounds")?;
    let bytes =
        |kind: &str| report["bytes"][kind].as_u64().with_context(|| format!("no {kind} bytes in {report}"));
    let left = bytes("raw")?.saturating_sub(bytes("memory")?);
    println!(
        "    {:?}; {} rounds, {} MiB first, {} in the freeze and {} left to CRIU; clients waited {} ms, {}",
        journey.after,
        rounds.len(),
        mib(&rounds[0]["bytes"]),
        mib(&report["last_round_bytes"]),
        left >> 20,
        journey.traffic.gap.as_millis(),
        frozen(report),
    );
    ensure!(left <= LEFT_TO_CRIU, "CRIU had to dump {left} bytes itself: {report}");
    ensure!(report["verified_pages"].as_u64() > Some(0), "nothing was compared: {report}");
    for host in [&a, &b] {
        host.forget_image(image)?;
        nothing_is_left(host)?;
    }
    Ok(())
}

fn mib(bytes: &serde_json::Value) -> u64 {
    bytes.as_u64().unwrap_or(0) >> 20
}
