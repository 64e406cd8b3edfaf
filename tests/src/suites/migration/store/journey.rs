//! A redis that rests in each kind of place, and goes on with its data on the other host.

use anyhow::{ensure, Result};
use std::time::Duration;

use super::places::{Kind, Stage};
use crate::apps;
use crate::apps::container::{Container, Setup};
use crate::apps::load::Traffic;
use crate::apps::peer::Peer;
use crate::framework::{golang, Case, Ctx, Host};
use crate::suites::migration::stage::with_images;

pub(super) const CASES: &[Case] = &[
    Case { name: "a checkpoint rests in a directory", run: |ctx| journey(ctx, Kind::Directory).into() },
    Case { name: "a checkpoint rests in a registry", run: |ctx| journey(ctx, Kind::Registry).into() },
    Case {
        name: "a checkpoint rests in an object store",
        run: |ctx| golang::needed(|| journey(ctx, Kind::Bucket)),
    },
];

fn journey(ctx: &Ctx, kind: Kind) -> Result<()> {
    let stage = Stage::new(ctx, kind)?;
    for host in [&stage.a, &stage.b] {
        with_images(host, &["redis"])?;
    }
    go(&stage, "plain", &[])?;
    go(&stage, "secret", &["--encrypt"])?;
    let labels = stage.list()?;
    let encrypted: Vec<_> = labels.iter().map(|label| label["encrypted"] == true).collect();
    ensure!(encrypted == [false, true], "{labels:?}");
    ensure!(
        labels.iter().all(|label| label["stored"].as_u64() < label["bytes"].as_u64()),
        "not packed: {labels:?}"
    );
    for name in ["plain", "secret"] {
        stage.b.cmd(["fastmig", "checkpoints", "delete", &stage.location(name)]).ok()?;
    }
    ensure!(stage.list()?.is_empty(), "deleted ones stay");
    Ok(())
}

fn go(stage: &Stage, name: &str, options: &[&str]) -> Result<()> {
    let mut redis = apps::named("redis").ok_or_else(|| anyhow::anyhow!("there is no redis"))?;
    let setup = Setup::of("redis").with(redis.options()).running(redis.command());
    // The same on both hosts, as a client would name it.
    let source = Container::run(&stage.a, "resting", &setup)?;
    let destination = Container::run(&stage.b, "resting", &setup.in_standby())?;
    redis.fill(&Peer::new(&stage.a, redis.port(), &stage.a)?)?;
    let location = stage.location(name);
    let stored =
        source.operate("checkpoint", &[&["--standby", "--files", "--to", &location], options].concat())?;
    ensure!(stored["path"] == location, "{stored}");
    source.require("standby")?;
    source.remove()?;
    nothing_on_its_way(&stage.a)?;
    let restored = destination.operate("restore", &["--from", &location])?;
    ensure!(restored["path"] == location, "{restored}");
    destination.require("running")?;
    nothing_on_its_way(&stage.b)?;
    let traffic = Traffic { acknowledged: vec![], gap: Duration::ZERO, reconnects: 0 };
    redis.verify(&Peer::new(&stage.b, redis.port(), &stage.b)?, &traffic)?;
    println!("    {name}: {} bytes stored as {}", stored["bytes"], stored["stored"]["stored"]);
    destination.remove()
}

/// A checkpoint's only copy is the stored one.
pub(super) fn nothing_on_its_way(host: &Host) -> Result<()> {
    let left = host.sh("ls -A /var/lib/fastmig/staging 2>/dev/null || true").ok()?;
    ensure!(left.trim().is_empty(), "left on host {}: {left}", host.name());
    Ok(())
}
