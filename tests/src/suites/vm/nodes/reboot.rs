//! A node that loses its power in the middle of a migration: nothing is half there, and what is to run by its client's own
//! policy does.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::container::{Container, FASTMIG};
use crate::framework::process::wait_until;
use crate::framework::vm::{Cluster, Kernel, Node};
use crate::framework::Case;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "reboot: of the source while the application runs there",
        run: |_| source("pre-checkpoint").into(),
    },
    Case {
        name: "reboot: of the source while the application is frozen",
        run: |_| source("post-checkpoint").into(),
    },
    Case { name: "reboot: of the destination while it restores", run: |_| destination().into() },
];

const LIMIT: Duration = Duration::from_secs(240);

/// containerd starts such a container anew, whatever ended it.
const RESTART: &str = "containerd.io/restart.status=running containerd.io/restart.policy=always \
     containerd.io/restart.loguri=file:///var/log/web.log";

/// A hook that stops a migration at `stage` until power is lost, and says so.
fn stop_at(node: &Node, stage: &str) -> Result<()> {
    let settings = format!(
        "[[hook]]\nwhen = \"{stage}\"\ncommand = [\"/bin/sh\", \"-c\", \"touch /run/stopped; sleep 300\"]\ntimeout = 300\noperations = [\"migrate\"]\n"
    );
    node.sh(&format!("rm -f /run/stopped; cat >/etc/fastmig/config.toml <<'X'\n{settings}X\nsync\nsystemctl restart fastmigd"))?;
    node.sh(crate::framework::vm::cluster::WAIT_FOR_DAEMON).map(drop)
}

/// Loses power once the hook runs; what the hook would do a second time is gone before.
fn lose_power(node: &Node) -> Result<()> {
    wait_until(LIMIT, || node.sh("test -e /run/stopped").is_ok()).context("the hook does not run")?;
    node.sh("rm /etc/fastmig/config.toml; sync")?;
    node.reset()?;
    node.sh(crate::framework::vm::cluster::WAIT_FOR_DAEMON).map(drop)
}

/// Runs redis on the first node, and a container that waits for it on the second.
fn stage(cluster: &Cluster) -> Result<(Container, Container)> {
    // Both ends alike: what comes from a node without profiles is not taken under one.
    for node in &cluster.nodes {
        node.sh("rm -f /etc/fastmig/config.toml; systemctl restart fastmigd")?;
        node.sh(crate::framework::vm::cluster::WAIT_FOR_DAEMON)?;
    }
    let source = Container::run(&cluster.nodes[0], "web", (FASTMIG, &["--seccomp"]), "redis", &[])?;
    // Not before: containerd would start it beside its client.
    source.node.sh(&format!("ctr containers label web {RESTART}"))?;
    source.wait_for("redis-cli ping")?;
    let target = Container::in_standby(&cluster.nodes[1], "web", &["--seccomp"], "redis")?;
    Ok((source, target))
}

/// No migration is under way there any more, and none is left to be decided.
fn settled(container: &Container) -> Result<()> {
    let open = || -> Result<bool> { Ok(!container.operate("status", "")?["migration"].is_null()) };
    wait_until(LIMIT, || open().is_ok_and(|open| !open))
        .with_context(|| format!("{}: {:?}", container.node.name(), container.operate("status", "")))
}

/// Afterwards all is as if there had been none: the next migration goes well.
fn moves_now(source: &Container, target: &Container) -> Result<()> {
    source.wait_for("redis-cli ping")?;
    source.exec("redis-cli set colour green")?;
    source.operate("migrate", "--to node2")?;
    ensure!(target.application()? == "running" && source.application()? == "standby", "it did not move");
    ensure!(target.exec("redis-cli get colour")?.trim() == "green", "it forgot");
    Ok(())
}

fn source(stage_of: &str) -> Result<()> {
    let cluster = super::cluster(Kernel::Trixie)?;
    let (source, target) = stage(&cluster)?;
    stop_at(&source.node, stage_of)?;
    let _migration = source.node.command("fastmig migrate web --to node2").spawn()?;
    lose_power(&source.node)?;
    // As after any reboot: nobody has saved it, and its client starts it anew.
    let runs = || source.application().is_ok_and(|application| application == "running");
    wait_until(LIMIT, runs).with_context(|| format!("at the source: {:?}", source.application()))?;
    let waits = || target.application().is_ok_and(|application| application == "standby");
    wait_until(LIMIT, waits).with_context(|| format!("at the destination: {:?}", target.application()))?;
    settled(&source)?;
    settled(&target)?;
    let left = source.node.sh("ls -A /var/lib/fastmig/staging 2>/dev/null || true")?;
    ensure!(left.trim().is_empty(), "left at the source: {left}");
    moves_now(&source, &target)
}

fn destination() -> Result<()> {
    let cluster = super::cluster(Kernel::Trixie)?;
    let (source, target) = stage(&cluster)?;
    source.exec("redis-cli set colour red")?;
    stop_at(&target.node, "pre-restore")?;
    let _migration = source.node.command("fastmig migrate web --to node2").spawn()?;
    lose_power(&target.node)?;
    let runs = || source.application().is_ok_and(|application| application == "running");
    wait_until(LIMIT, runs).with_context(|| format!("at the source: {:?}", source.application()))?;
    ensure!(source.exec("redis-cli get colour")?.trim() == "red", "it forgot");
    settled(&source)?;
    // No client's policy starts that one: it is made anew.
    drop(target);
    let target = Container::in_standby(&cluster.nodes[1], "web", &["--seccomp"], "redis")?;
    moves_now(&source, &target)
}
