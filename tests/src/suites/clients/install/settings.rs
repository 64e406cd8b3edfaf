//! What the host's settings say of containers that say nothing themselves.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::framework::image::reference;
use crate::framework::recipe::Equipment;
use crate::framework::{dist, Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "install: the host's settings hold (trixie)",
        run: |ctx| hold(ctx, Generation::Trixie).into(),
    },
    Case {
        name: "install: the host's settings hold (forky)",
        run: |ctx| hold(ctx, Generation::Forky).into(),
    },
];

const FILE: &str = "/etc/fastmig/config.toml";
const IMAGE_PATH: &str = "/var/lib/fastmig/settings";

/// The two ways to FastMig: its shim, and the stock shim with its runtime.
const WAYS: [&[&str]; 2] = [
    &["--runtime", "io.containerd.fastmig.v1"],
    &["--runtime", "io.containerd.runc.v2", "--runc-binary", "fastmig"],
];

fn hold(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = ctx.session()?.fresh_equipped_host("settings", generation, Equipment::Clients)?;
    host.install(&dist::build()?)?;
    host.start_containerd()?;
    host.import_images(&["busybox"])?;
    for way in WAYS {
        let context = || format!("ctr {}", way.join(" "));
        mode(&host, way).with_context(context)?;
        start(&host, way).with_context(context)?;
        runtime(&host, way).with_context(context)?;
        broken(&host, way).with_context(context)?;
    }
    Ok(())
}

/// `ctr run -d` of a shell that lives.
fn run(host: &Host, way: &[&str], annotations: &[&str]) -> Result<()> {
    let annotations: Vec<&str> =
        annotations.iter().flat_map(|annotation| ["--annotation", *annotation]).collect();
    let command = ["sh", "-c", "while :; do sleep 1; done"];
    let image = reference("busybox");
    let all = [&["ctr", "run", "-d"], way, &annotations, &[image.as_str(), "c"], &command].concat();
    host.cmd(all).ok().map(drop)
}

fn remove(host: &Host) -> Result<()> {
    let script = "ctr t kill -s KILL c; for i in $(seq 200); do ctr t ls -q | grep -qx c || break; \
                  ctr t rm c >/dev/null 2>&1; sleep 0.05; done; ctr c rm c";
    host.sh(script).ok().map(drop)
}

fn status(host: &Host) -> Result<Value> {
    Ok(serde_json::from_str(&host.cmd(["fastmig", "--json", "status", "c"]).ok()?)?)
}

fn mode(host: &Host, way: &[&str]) -> Result<()> {
    host.write_file(FILE, "[defaults]\nmode = \"off\"\n")?;
    let first = || host.sh("tr '\\0' ' ' </proc/$(ctr t ls | awk '$1 == \"c\" { print $2 }')/cmdline").ok();
    for (annotations, expected) in
        [(&[][..], "sh -c"), (&["fastmig.dev/mode=warm"], "/dev/.fastmig/fastmig-init")]
    {
        run(host, way, annotations)?;
        ensure!(first()?.starts_with(expected), "with {annotations:?} its first process is {}", first()?);
        remove(host)?;
    }
    Ok(())
}

fn start(host: &Host, way: &[&str]) -> Result<()> {
    host.write_file(FILE, "[defaults]\nstart = \"standby\"\n")?;
    for (annotations, expected) in [(&[][..], "standby"), (&["fastmig.dev/start=run"], "running")] {
        run(host, way, annotations)?;
        let status = status(host)?;
        ensure!(status["application"] == expected, "with {annotations:?}: {status}");
        remove(host)?;
    }
    Ok(())
}

/// crun in runc's place: the container is crun's, and its application moves.
fn runtime(host: &Host, way: &[&str]) -> Result<()> {
    host.write_file(FILE, "runtime = \"crun\"\n")?;
    run(host, way, &[])?;
    let made_by = host.sh("cat /run/fastmig/*/c/state.json").ok()?;
    ensure!(made_by.contains("\"crun\""), "not made by crun: {made_by}");
    host.cmd(["fastmig", "checkpoint", "c", "--image-path", IMAGE_PATH, "--standby"]).ok()?;
    host.cmd(["fastmig", "restore", "c", "--image-path", IMAGE_PATH]).ok()?;
    let status = status(host)?;
    ensure!(status["application"] == "running", "{status}");
    host.sh(&format!("rm -rf {IMAGE_PATH}")).ok()?;
    remove(host)
}

/// A wrong file is named to whoever wants a container.
fn broken(host: &Host, way: &[&str]) -> Result<()> {
    host.write_file(FILE, "\n[defaults]\nmode = \"hot\"\n")?;
    let error = run(host, way, &[]).err().context("a container was made")?.to_string();
    ensure!(error.contains("/etc/fastmig/config.toml, line 3: ") && error.contains("hot"), "{error}");
    // What ctr has made before it was told.
    host.sh("ctr t rm -f c; ctr c rm c; true").ok()?;
    host.write_file(FILE, "").map(drop)
}
