//! The shipped configuration files are read by the programs that they are for.

use anyhow::{ensure, Context, Result};

use crate::framework::dist::repository;
use crate::framework::{Case, Ctx, Generation};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "containerd 1.7 takes its drop-in",
        run: |ctx| drop_in(ctx, Generation::Trixie, "containerd-1.7.toml").into(),
    },
    Case {
        name: "containerd 2 takes its drop-in",
        run: |ctx| drop_in(ctx, Generation::Forky, "containerd-2.toml").into(),
    },
    Case { name: "fastmig takes its sample configuration", run: |ctx| sample(ctx).into() },
];

fn shipped(name: &str) -> Result<Vec<u8>> {
    let path = repository().join("containerd-config").join(name);
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn drop_in(ctx: &Ctx, generation: Generation, file: &str) -> Result<()> {
    let host = ctx.session()?.fresh_host("config", generation)?;
    host.write_file("/etc/fastmig-drop-in.toml", shipped(file)?)?;
    let dump = host.cmd(["containerd", "--config", "/etc/fastmig-drop-in.toml", "config", "dump"]).ok()?;
    for (handler, kind) in [
        ("fastmig", "io.containerd.fastmig.v1"),
        ("fastmig-as-runc", "io.containerd.runc.v2"),
        ("fastmig-oci", "io.containerd.runc.v2"),
    ] {
        let table =
            dump.split(&format!(".runtimes.{handler}]")).nth(1).context("the handler is not in force")?;
        let (table, _) = table.split_once("\n\n").unwrap_or((table, ""));
        ensure!(table.contains(kind), "{handler} is not of type {kind}: {table}");
        ensure!(table.contains("fastmig.*/*"), "{handler} passes no annotations: {table}");
    }
    Ok(())
}

fn sample(ctx: &Ctx) -> Result<()> {
    let host = ctx.session()?.fresh_host("config", Generation::Trixie)?;
    let dist = crate::framework::dist::build()?;
    host.install(&dist)?;
    host.write_file("/etc/fastmig/config.toml", shipped("fastmig.toml")?)?;
    host.cmd(["fastmig", "status"]).ok()?;
    host.write_file("/etc/fastmig/config.toml", "[limits]\ncriuu = 1\n")?;
    let refused = host.cmd(["fastmig", "status"]).output()?;
    let text = refused.err();
    ensure!(!refused.status.success(), "an unknown key was taken");
    ensure!(text.contains("line 2") && text.contains("criuu"), "the line is not named: {text}");
    Ok(())
}
