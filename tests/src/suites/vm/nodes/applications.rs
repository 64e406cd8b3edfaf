//! Unmodified applications with processes of several users, under AppArmor: saved and restored in place, then moved to the other
//! node, with CAP_SYS_RESOURCE, which the test hosts lack.

use std::sync::Arc;

use anyhow::{ensure, Result};

use super::container::{Container, FASTMIG};
use crate::framework::vm::{Cluster, Kernel};
use crate::framework::Case;

pub(super) const CASES: &[Case] = &[
    Case { name: "applications: redis is saved, restored and moved", run: |_| redis().into() },
    Case {
        name: "applications: nginx, its master and workers, is saved, restored and moved",
        run: |_| nginx().into(),
    },
    Case { name: "applications: PostgreSQL is saved, restored and moved", run: |_| postgres().into() },
];

/// What there is time for always, on one node.
pub(super) const IN_BRIEF: &[Case] = &[Case {
    name: "applications: nginx, its master and workers, is saved and restored",
    run: |_| nginx_in_place().into(),
}];

const OPTIONS: &[&str] = &["--seccomp"];

/// What root's server needs to become somebody else.
const BECOMES: &[&str] = &["--seccomp", "--allow-new-privs"];

fn cluster() -> Result<Arc<Cluster>> {
    let cluster = super::cluster(Kernel::Trixie)?;
    for node in &cluster.nodes {
        node.sh("printf '[confinement]\\napparmor = true\\n' >/etc/fastmig/config.toml; systemctl restart fastmigd")?;
        node.sh(crate::framework::vm::cluster::WAIT_FOR_DAEMON)?;
        let capabilities = node.sh("grep CapEff /proc/self/status")?;
        let set = capabilities.split_whitespace().nth(1).unwrap_or_default();
        let set = u64::from_str_radix(set, 16)?;
        ensure!(set & (1 << 24) != 0, "no CAP_SYS_RESOURCE on {}", node.name());
    }
    Ok(cluster)
}

/// Moves what `container` has to a fresh one of the same image on the other node, and answers that.
fn moved(cluster: &Cluster, container: &Container, options: &[&str], image: &str) -> Result<Container> {
    let target = Container::in_standby(&cluster.nodes[1], &container.id, options, image)?;
    let report = &container.operate("migrate", "--to node2")?["report"];
    println!("    {}: strategy {}, frozen {} ms", container.id, report["strategy"], report["frozen_ms"]);
    ensure!(target.application()? == "running", "at the destination it is {}", target.application()?);
    ensure!(container.application()? == "standby", "at the source it is {}", container.application()?);
    if options.contains(&"--allow-new-privs") {
        target.require_init_label()?;
    } else {
        target.require_label("fastmig-container (enforce)")?;
    }
    Ok(target)
}

fn redis() -> Result<()> {
    let cluster = cluster()?;
    let container = Container::run(&cluster.nodes[0], "redis", (FASTMIG, OPTIONS), "redis", &[])?;
    container.wait_for("redis-cli ping")?;
    container.exec("redis-cli set colour blue")?;
    container.save_and_restore()?;
    let target = moved(&cluster, &container, OPTIONS, "redis")?;
    ensure!(target.exec("redis-cli get colour")?.trim() == "blue", "redis has forgotten");
    Ok(())
}

/// The users of the processes in it, by how many.
fn users(container: &Container, name: &str) -> Result<String> {
    let script = format!(
        "for each in /proc/[0-9]*; do grep -qs '^Name:.{name}' $each/status && grep ^Uid: $each/status; done | cut -f2 | sort | uniq -c"
    );
    container.exec(&script)
}

/// One that was saved and restored, and the users of its processes.
fn restored_nginx(cluster: &Cluster) -> Result<(Container, String)> {
    let container = Container::run(&cluster.nodes[0], "nginx", (FASTMIG, BECOMES), "nginx", &[])?;
    container.wait_for("curl -sf http://127.0.0.1/")?;
    let before = users(&container, "nginx")?;
    ensure!(before.lines().count() == 2, "nginx has one user only:\n{before}");
    container.save_and_restore()?;
    container.exec("curl -sf http://127.0.0.1/")?;
    let after = users(&container, "nginx")?;
    ensure!(before == after, "users before:\n{before}after:\n{after}");
    Ok((container, before))
}

fn nginx_in_place() -> Result<()> {
    let (container, _) = restored_nginx(&*cluster()?)?;
    container.require_init_label()
}

fn nginx() -> Result<()> {
    let cluster = cluster()?;
    let (container, before) = restored_nginx(&cluster)?;
    let target = moved(&cluster, &container, BECOMES, "nginx")?;
    target.exec("curl -sf http://127.0.0.1/")?;
    let after = users(&target, "nginx")?;
    ensure!(before == after, "users before:\n{before}after:\n{after}");
    Ok(())
}

fn postgres() -> Result<()> {
    let cluster = cluster()?;
    let container = Container::run(&cluster.nodes[0], "postgres", (FASTMIG, OPTIONS), "postgres", &[])?;
    let ask = |container: &Container, words: &str| container.exec(&format!("psql -qAtc '{words}' postgres"));
    container.wait_for("psql -qAtc 'select 1' postgres")?;
    ask(&container, "create table t as select generate_series(1, 1000) n")?;
    container.save_and_restore()?;
    let target = moved(&cluster, &container, OPTIONS, "postgres")?;
    ensure!(ask(&target, "select sum(n) from t")?.trim() == "500500", "PostgreSQL has forgotten");
    ask(&target, "insert into t values (7)").map(drop)
}
