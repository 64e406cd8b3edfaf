//! The Debian package: it installs, its containers run, it goes without a trace.

use anyhow::{ensure, Context, Result};

use super::stage::{is_unchanged, snapshot, CONTAINERD_CONFIG, CONTAINERD_FILE};
use crate::framework::image::reference;
use crate::framework::recipe::Equipment;
use crate::framework::{deb, Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "install: the Debian package comes and goes (trixie)",
        run: |ctx| package(ctx, Generation::Trixie).into(),
    },
    Case {
        name: "install: the Debian package comes and goes (forky)",
        run: |ctx| package(ctx, Generation::Forky).into(),
    },
    Case { name: "install: a broken client does not hold the package", run: |ctx| stuck(ctx).into() },
];

const PACKAGE: &str = "/shared/fastmig.deb";

/// A host with clients and without FastMig, and the package where it finds it.
fn host(ctx: &Ctx, generation: Generation) -> Result<Host> {
    let session = ctx.session()?;
    let package = deb::build(session.cache())?;
    let host = session.fresh_equipped_host("package", generation, Equipment::Clients)?;
    std::fs::copy(&package, host.shared_dir().join("fastmig.deb"))
        .with_context(|| format!("cannot copy {}", package.display()))?;
    // The framework's own; what the machine needs besides stays.
    host.sh("rm -rf /usr/lib/fastmig/runtime/criu; mkdir -p /etc/cni && mkdir -m 700 -p /etc/cni/net.d")
        .ok()?;
    host.write_file(CONTAINERD_FILE, CONTAINERD_CONFIG)?;
    host.write_file("/etc/docker/daemon.json", "{}\n")?;
    Ok(host)
}

fn dpkg(host: &Host, options: &[&str]) -> Result<String> {
    let output = host.cmd([&["dpkg"], options].concat()).output()?;
    ensure!(output.status.success(), "dpkg {options:?}: {output:?}");
    Ok(output.out() + &output.err())
}

fn package(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = host(ctx, generation)?;
    let before = snapshot(&host)?;
    let said = dpkg(&host, &["-i", PACKAGE])?;
    ensure!(said.contains("systemctl restart containerd docker"), "{said}");
    ensure!(host.cmd(["which", "fastmig"]).ok()?.trim() == "/usr/bin/fastmig", "fastmig is elsewhere");
    let containerd = String::from_utf8(host.read_file(CONTAINERD_FILE)?)?;
    ensure!(containerd.contains("\"/usr/bin/containerd-shim-fastmig-v1\""), "{containerd}");
    runs(&host)?;

    // Once more, as an upgrade does.
    let said = dpkg(&host, &["-i", PACKAGE])?;
    ensure!(said.contains("nothing to do"), "{said}");

    dpkg(&host, &["-r", "fastmig"])?;
    ensure!(
        host.read_file(CONTAINERD_FILE)? == CONTAINERD_CONFIG.as_bytes(),
        "containerd's file is not as before"
    );
    host.read_file("/etc/fastmig/config.toml").context("removed like a purged package")?;
    dpkg(&host, &["--purge", "fastmig"])?;
    // dpkg takes the directory with the last file of its package.
    host.sh("mkdir -p /etc/fastmig /usr/lib/fastmig/runtime").ok()?;
    is_unchanged(&host, &before)
}

fn runs(host: &Host) -> Result<()> {
    host.start_configured_containerd()?;
    host.import_images(&["busybox"])?;
    let image = reference("busybox");
    for runtime in [&["--runtime", "io.containerd.fastmig.v1"][..], &["--runc-binary", "fastmig"]] {
        let command = ["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"];
        let run = [&["ctr", "run", "--rm"], runtime, &[image.as_str(), "packaged"], &command].concat();
        let told = host.cmd(run).ok()?;
        ensure!(told.starts_with("/dev/.fastmig/fastmig-init"), "{runtime:?}: its first process is {told:?}");
    }
    host.kill_containerd()
}

/// A client's configuration that cannot be read, when the package comes and when it goes.
fn stuck(ctx: &Ctx) -> Result<()> {
    let host = host(ctx, Generation::Trixie)?;
    host.write_file("/etc/docker/daemon.json", "{")?;
    let said = dpkg(&host, &["-i", PACKAGE])?;
    ensure!(
        said.contains("/etc/docker/daemon.json, line 1") && said.contains("run: fastmig install"),
        "{said}"
    );
    host.write_file("/etc/docker/daemon.json", "{}")?;
    host.cmd(["fastmig", "install"]).ok()?;

    host.write_file("/etc/docker/daemon.json", "{")?;
    let said = dpkg(&host, &["-r", "fastmig"])?;
    ensure!(said.contains("/etc/docker/daemon.json, line 1") && said.contains("by hand"), "{said}");
    ensure!(!host.cmd(["which", "fastmig"]).output()?.status.success(), "fastmig is still there");
    dpkg(&host, &["--purge", "fastmig"]).map(drop)
}
