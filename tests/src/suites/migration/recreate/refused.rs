//! What is not made once more: what this host does not allow or lacks, what no honest peer sends, what cannot be taken over.

use std::sync::Arc;

use anyhow::{ensure, Result};

use super::stage::{self, expect_refusal, Recipe};
use super::way::{Way, SCRIPT};
use crate::framework::{Case, Ctx, Host};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "recreate: no archive gives an image another one's name",
        run: |ctx| with(ctx, archives).into(),
    },
    Case {
        name: "recreate: what a host does not allow is refused with its remedy",
        run: |ctx| with(ctx, rights).into(),
    },
    Case {
        name: "recreate: what is in the way or missing is named",
        run: |ctx| with(ctx, in_the_way).into(),
    },
    Case {
        name: "recreate: a recipe that no honest peer writes is refused",
        run: |ctx| with(ctx, hostile).into(),
    },
    Case {
        name: "recreate: settings that cannot be taken over are named",
        run: |ctx| with(ctx, settings).into(),
    },
];

const WAY: Way = Way { client: "docker", runtime: &["--runtime=fastmig"], name: "twin", port: 8311 };

/// Runs a case, and clears away what it made.
fn with(ctx: &Ctx, case: fn(&Arc<Host>, &Arc<Host>) -> Result<()>) -> Result<()> {
    let (a, b) = stage::pair(ctx)?;
    let result = case(&a, &b);
    let cleaned = WAY.remove(&a).and(WAY.remove(&b)).and(WAY.forget_image(&b));
    result.and(cleaned)
}

/// A container of docker's on the source, with these options.
fn run(host: &Host, options: &[&str]) -> Result<()> {
    let line = [&["docker", "run", "-d", "--runtime=fastmig", "--name=twin"], options].concat();
    host.cmd([&line, &["busybox:1", "sh", "-c", SCRIPT][..]].concat()).ok().map(drop)
}

fn images(host: &Host) -> Result<String> {
    host.cmd(["docker", "images", "--all", "--no-trunc"]).ok()
}

fn archives(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    WAY.forget_image(b)?;
    run(a, &[])?;
    let recipe = Recipe::of(a, b, "twin")?;
    let archive = recipe.exported(a)?;
    let before = images(b)?;
    let other = recipe.changed(b, |recipe| recipe["image"]["name"] = "redis:1".into())?;
    expect_refusal(other.import(b, archive.clone()), &["archive is refused", "redis:1"])?;
    expect_refusal(
        recipe.import(b, archive[..archive.len() / 2].to_vec()),
        &["archive is refused", "ends early"],
    )?;
    expect_refusal(recipe.import(b, vec![7; 10_000]), &["archive is refused"])?;
    ensure!(images(b)? == before, "a refused archive left an image:\n{}", images(b)?);

    // The name means something else here, and keeps its meaning.
    b.sh("tar -c -C /etc hostname | docker import - busybox:1").ok()?;
    let before = images(b)?;
    expect_refusal(recipe.import(b, archive), &["other content on this host"])?;
    ensure!(images(b)? == before, "an image lost its name:\n{}", images(b)?);
    Ok(())
}

fn rights(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    run(a, &["--cap-add=SYS_ADMIN", "--volume=/srv:/srv:ro"])?;
    let recipe = Recipe::of(a, b, "twin")?;
    let remedies = ["create.capabilities", "SYS_ADMIN", "create.binds", "/srv"];
    expect_refusal(recipe.check(b, "twin"), &remedies)?;
    let privileged = recipe.changed(b, |recipe| recipe["settings"]["rights"]["privileged"] = true.into())?;
    expect_refusal(privileged.create(b, "twin"), &["create.privileged"])
}

fn in_the_way(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    a.cmd(["docker", "network", "create", "twins"]).ok()?;
    let result = lacking(a, b);
    WAY.remove(a)?;
    a.cmd(["docker", "network", "rm", "twins"]).ok()?;
    result
}

fn lacking(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    run(a, &["--network=twins", "--network-alias=double", "--volume=twin-data:/data"])?;
    let recipe = Recipe::of(a, b, "twin")?;
    expect_refusal(recipe.check(b, "twin"), &["network twins", "docker network create twins"])?;
    recipe.import(b, recipe.exported(a)?)?;
    b.cmd(["docker", "network", "create", "twins"]).ok()?;
    let result = volumes_and_names(&recipe, b);
    WAY.remove(b)?;
    b.cmd(["docker", "network", "rm", "twins"]).ok()?;
    result
}

fn volumes_and_names(recipe: &Recipe, b: &Arc<Host>) -> Result<()> {
    b.cmd(["docker", "volume", "create", "twin-data"]).ok()?;
    expect_refusal(recipe.create(b, "twin"), &["volume twin-data already", "create.existing_volumes"])?;
    b.cmd(["docker", "volume", "inspect", "twin-data"]).ok()?;
    b.cmd(["docker", "volume", "rm", "twin-data"]).ok()?;
    recipe.create(b, "twin")?;
    expect_refusal(recipe.create(b, "twin"), &["a container twin already"])?;
    // The refusal left the one that is there alone.
    let status = stage::fastmig(b, "status", "twin", &[])?;
    ensure!(status["application"] == "standby", "it is no longer in standby: {status}");
    Ok(())
}

fn hostile(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    run(a, &[])?;
    let recipe = Recipe::of(a, b, "twin")?;
    recipe.import(b, recipe.exported(a)?)?;
    let refused = |what: &str, pointer: &str, value: serde_json::Value| {
        let changed = recipe.changed(b, |recipe| {
            if let Some(place) = recipe.pointer_mut(pointer) {
                *place = value;
            }
        })?;
        expect_refusal(changed.create(b, "twin"), &[what])
    };
    refused("annotation", "/settings/annotations", serde_json::json!({ "run.oci.handler": "krun" }))?;
    refused("annotation", "/settings/annotations", serde_json::json!({ "fastmig.dev/start": "run" }))?;
    refused("runtime", "/runtime", serde_json::json!({ "named": "/tmp/program" }))?;
    // It would start the application.
    refused("no runtime runc that is FastMig", "/runtime", serde_json::json!({ "named": "runc" }))?;
    refused("image name", "/image/name", "--privileged".into())?;
    refused("log driver", "/settings/log_driver", "syslog".into())?;
    refused("cannot be read", "/settings/limits", serde_json::json!({ "gpus": 1 }))?;
    refused("cannot be read", "/format", 2.into())?;
    let left = b.cmd(["docker", "ps", "--all", "--quiet"]).ok()?;
    ensure!(left.trim().is_empty(), "a refused recipe left a container: {left}");
    Ok(())
}

fn settings(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    for (option, told) in [
        ("--device=/dev/null:/dev/other", "HostConfig.Devices"),
        ("--cgroup-parent=/twins", "HostConfig.CgroupParent"),
        ("--ipc=host", "HostConfig.IpcMode"),
        ("--security-opt=seccomp=unconfined", "seccomp=unconfined"),
        ("--health-cmd=true", "health check"),
    ] {
        run(a, &[option])?;
        expect_refusal(Recipe::of(a, b, "twin"), &[told, "in standby on the destination yourself"])?;
        WAY.remove(a)?;
    }
    Ok(())
}
