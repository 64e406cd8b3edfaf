//! The whole of it: `fastmig migrate --create` to a host that has neither the container nor its image.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage;
use super::twins::{count, SOON};
use super::way::Way;
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "recreate: docker, live",
        run: |ctx| live(ctx, "docker", &["--runtime=fastmig"], 8321).into(),
    },
    Case {
        name: "recreate: podman, live",
        run: |ctx| live(ctx, "podman", &["--runtime=fastmig"], 8322).into(),
    },
    Case {
        name: "recreate: ctr, live",
        run: |ctx| live(ctx, "ctr", &["--runtime=io.containerd.fastmig.v1"], 8323).into(),
    },
];

fn live(ctx: &Ctx, client: &'static str, runtime: &'static [&'static str], port: u16) -> Result<()> {
    let (a, b) = stage::pair(ctx)?;
    stage::join(&a, &b)?;
    let way = Way { client, runtime, name: "twin", port };
    let result = migrate(&way, &a, &b);
    let cleaned = way.remove(&a).and(way.remove(&b));
    result.and(cleaned)
}

fn migrate(way: &Way, a: &Host, b: &Host) -> Result<()> {
    way.forget_image(b)?;
    way.run(a)?;
    wait_until(SOON, || count(a, way.name).is_ok_and(|count| count > 1)).context("it does not count")?;
    let line = ["fastmig", "--json", "migrate", way.name, "--to", b.name(), "--create", "--volumes", "all"];
    let told = a.cmd(line).ok()?;
    let counted = count(a, way.name)?;
    wait_until(SOON, || count(b, way.name).is_ok_and(|count| count > counted)).with_context(|| {
        format!("it had counted to {counted} when it was moved, and does not go on: {told}")
    })?;
    let (here, there) = (way.told(a)?, way.told(b)?);
    ensure!(here == there, "{} tells of the first:\n{here:#}\nand of the second:\n{there:#}", way.client);
    let left: Value = stage::fastmig(a, "status", way.name, &[])?;
    ensure!(left["application"] == "standby", "it is not gone from the source: {left}");
    Ok(())
}
