//! Each client makes a container once more, in standby, from nothing but a recipe and an archive; the client tells the same
//! of both, and the application moves over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use super::stage::{self, expect_refusal, fastmig, Recipe};
use super::way::Way;
use crate::framework::process::wait_until;
use crate::framework::{Case, Ctx, Host, Outcome};

pub(super) const CASES: &[Case] = &[
    Case { name: "recreate: docker, wrapper", run: |ctx| twin(ctx, "docker", &["--runtime=fastmig"], 8301) },
    Case {
        name: "recreate: docker, shim",
        run: |ctx| twin(ctx, "docker", &["--runtime=fastmig-shim"], 8302),
    },
    Case { name: "recreate: podman, wrapper", run: |ctx| twin(ctx, "podman", &["--runtime=fastmig"], 8303) },
    Case {
        name: "recreate: nerdctl, wrapper",
        run: |ctx| twin(ctx, "nerdctl", &["--runtime=fastmig"], 8304),
    },
    Case {
        name: "recreate: nerdctl, shim",
        run: |ctx| twin(ctx, "nerdctl", &["--runtime=io.containerd.fastmig.v1"], 8305),
    },
    Case {
        name: "recreate: ctr, wrapper",
        run: |ctx| {
            let runtime = &["--runtime=io.containerd.runc.v2", "--runc-binary=/usr/local/bin/fastmig"];
            twin(ctx, "ctr", runtime, 8306)
        },
    },
    Case {
        name: "recreate: ctr, shim",
        run: |ctx| twin(ctx, "ctr", &["--runtime=io.containerd.fastmig.v1"], 8307),
    },
];

/// How long what should happen at once may take on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(30);

fn twin(ctx: &Ctx, client: &'static str, runtime: &'static [&'static str], port: u16) -> Outcome {
    if client == "nerdctl" && crate::framework::clients::nerdctl().is_none() {
        return Outcome::Skipped("there is no nerdctl in PATH (Debian has no package of it)".into());
    }
    let way = Way { client, runtime, name: "twin", port };
    shown(ctx, &way).into()
}

fn shown(ctx: &Ctx, way: &Way) -> Result<()> {
    let (a, b) = stage::pair(ctx)?;
    let result = move_over(way, &a, &b);
    // Also what a failure left: the next case makes one of the same name.
    let cleaned = way.remove(&a).and(way.remove(&b));
    result.and(cleaned)
}

fn move_over(way: &Way, a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    way.forget_image(b)?;
    way.run(a)?;
    let recipe = Recipe::of(a, b, way.name)?;
    ensure!(!recipe.has_image(b)?, "b has the image already");
    recipe.check(b, way.name)?;
    expect_refusal(recipe.create(b, way.name), &["import it first"])?;
    recipe.import(b, recipe.exported(a)?).context("the image does not go in")?;
    ensure!(recipe.has_image(b)? && recipe.is_image_of(a, way.name)?, "the image is another one on b");

    // A first try comes to nothing, and leaves nothing.
    let created = recipe.create(b, way.name)?;
    created.undo(b)?;
    let created = recipe.create(b, way.name)?;
    let status = fastmig(b, "status", way.name, &[])?;
    ensure!(status["application"] == "standby" && status["runs"] == 0, "it is not in standby: {status}");
    ensure!(recipe.is_image_of(b, way.name)?, "it was made from another image");
    let (here, there) = (way.told(a)?, way.told(b)?);
    ensure!(here == there, "{} tells of the first:\n{here:#}\nand of the second:\n{there:#}", way.client);

    let counted = go_on(way.name, a, b)?;
    wait_until(SOON, || count(b, way.name).is_ok_and(|count| count > counted))
        .with_context(|| format!("it had counted to {counted}, now it is at {:?}", count(b, way.name)))?;
    expect_refusal(created.undo(b), &["runs"])
}

/// The application leaves its container and goes on in the other; answers how far it had counted.
fn go_on(name: &str, a: &Host, b: &Host) -> Result<u64> {
    wait_until(SOON, || count(a, name).is_ok_and(|count| count > 1)).context("it does not count")?;
    let path = format!("/shared/{name}");
    a.cmd(["rm", "-rf", "--", &path]).ok()?;
    fastmig(a, "checkpoint", name, &["--image-path", &path, "--standby", "--files"])?;
    fastmig(b, "restore", name, &["--image-path", &path])?;
    count(a, name)
}

/// How far it has counted: its file, seen through its container's PID 1, whatever the application does.
pub(super) fn count(host: &Host, name: &str) -> Result<u64> {
    let status = fastmig(host, "status", name, &[])?;
    let Some(pid) = status["pid"].as_i64() else { bail!("no PID 1: {status}") };
    let text = host.cmd(["cat", &format!("/proc/{pid}/root/tmp/count")]).ok()?;
    text.trim().parse().with_context(|| format!("{text:?} is no number"))
}
