//! Installed on a host with clients: each runs containers under FastMig, and afterwards all is as it was.

use anyhow::{ensure, Context, Result};

use super::stage::{bare_host, install, is_unchanged, snapshot, CONTAINERD_CONFIG, CONTAINERD_FILE};
use crate::framework::image::reference;
use crate::framework::recipe::Equipment;
use crate::framework::{Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "install: clients run containers and all is taken back (trixie)",
        run: |ctx| round(ctx, Generation::Trixie).into(),
    },
    Case {
        name: "install: clients run containers and all is taken back (forky)",
        run: |ctx| round(ctx, Generation::Forky).into(),
    },
];

const DOCKER_FILE: &str = "/etc/docker/daemon.json";

/// What tells an application that FastMig's init is above it.
const PROOF: &str = "tr '\\0' ' ' </proc/1/cmdline";

fn round(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = bare_host(ctx, generation, Equipment::Clients)?;
    bring_up(&host)?;
    let before = snapshot(&host)?;

    let shown = install(&host, &["--dry-run"]).ok()?;
    ensure!(
        shown.contains("+++ /etc/docker/daemon.json") && shown.contains("create /usr/local/bin/fastmig\n"),
        "{shown}"
    );
    is_unchanged(&host, &before).context("a dry run changed something")?;

    let done = install(&host, &[]).ok()?;
    ensure!(done.contains("systemctl restart containerd docker"), "{done}");
    let again = host.cmd(["fastmig", "install"]).ok()?;
    ensure!(again.starts_with("nothing to do"), "{again}");
    let would: serde_json::Value =
        serde_json::from_str(&host.cmd(["fastmig", "--json", "install", "--uninstall", "--dry-run"]).ok()?)?;
    ensure!(would["changes"].as_array().is_some_and(|changes| changes.len() > 30), "{would}");

    containerd(&host)?;
    docker(&host)?;
    podman(&host)?;

    let undone = host.cmd(["fastmig", "install", "--uninstall"]).ok()?;
    ensure!(undone.contains("put back /etc/containerd/config.toml"), "{undone}");
    is_unchanged(&host, &before)
}

/// Clients as an operator may have them.
fn bring_up(host: &Host) -> Result<()> {
    host.start_containerd()?;
    host.start_clients()?;
    host.import_images(&["busybox"])?;
    host.share_images(&["busybox"])?;
    host.write_file(CONTAINERD_FILE, CONTAINERD_CONFIG)?;
    // Made by the CRI plugin when it is not there.
    host.sh("mkdir -p /etc/cni && mkdir -m 700 -p /etc/cni/net.d").ok()?;
    host.write_file(
        DOCKER_FILE,
        "{\n\t\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"],\n\t\"experimental\": true\n}",
    )?;
    host.sh("rm -r /etc/containers/containers.conf.d").ok()?;
    let known = host.cmd(["podman", "--runtime", "fastmig", "info"]).output()?;
    ensure!(!known.status.success(), "podman knows fastmig before it is installed");
    Ok(())
}

/// Restarted, it has the handlers beside its own, its operator's settings, and containers under each registration.
fn containerd(host: &Host) -> Result<()> {
    let dump = host.cmd(["containerd", "config", "dump"]).ok()?;
    for expected in ["fastmig]", "fastmig-as-runc]", "fastmig-oci]", "runc]"] {
        ensure!(dump.contains(&format!(".runtimes.{expected}")), "no handler {expected} in\n{dump}");
    }
    ensure!(dump.contains("4242"), "the operator's setting is lost:\n{dump}");
    host.kill_containerd()?;
    host.start_configured_containerd()?;
    let plugins = host.cmd(["ctr", "plugins", "ls"]).ok()?;
    let cri = plugins.lines().find(|line| line.split_whitespace().nth(1) == Some("cri")).context("no CRI")?;
    ensure!(cri.contains(" ok"), "the CRI plugin does not load: {cri}");

    let (shim, image) = ("/usr/local/bin/containerd-shim-fastmig-v1", reference("busybox"));
    for (handler, options) in [
        ("fastmig", &["--runtime", "io.containerd.fastmig.v1"][..]),
        ("fastmig-as-runc", &["--runtime", shim]),
        ("fastmig-oci", &["--runtime", "io.containerd.runc.v2", "--runc-binary", "fastmig"]),
    ] {
        let run = [&["ctr", "run", "--rm"], options, &[&image, handler, "sh", "-c", PROOF]].concat();
        is_warm(&host.cmd(run).ok()?).with_context(|| format!("ctr, as handler {handler}"))?;
    }
    Ok(())
}

fn docker(host: &Host) -> Result<()> {
    host.restart_docker()?;
    let image = reference("busybox");
    let run = ["docker", "run", "--network", "none", "--runtime", "fastmig"];
    let told = host.cmd([&run[..], &["--rm", &image, "sh", "-c", PROOF]].concat()).ok()?;
    is_warm(&told).context("docker")?;

    // Its binaries are not taken from below a container.
    host.cmd([&run[..], &["-d", "--name", "stays", &image, "sleep", "600"]].concat()).ok()?;
    let refused = host.cmd(["fastmig", "install", "--uninstall"]).output()?;
    ensure!(refused.status.code() == Some(1) && refused.err().contains("remove them first"), "{refused:?}");
    host.cmd(["docker", "rm", "-f", "stays"]).ok().map(drop)
}

fn podman(host: &Host) -> Result<()> {
    let image = reference("busybox");
    let run =
        ["podman", "--runtime", "fastmig", "run", "--rm", "--network", "none", &image, "sh", "-c", PROOF];
    is_warm(&host.cmd(run).ok()?).context("podman")
}

fn is_warm(first_process: &str) -> Result<()> {
    ensure!(
        first_process.starts_with("/dev/.fastmig/fastmig-init"),
        "its first process is {first_process:?}"
    );
    Ok(())
}
