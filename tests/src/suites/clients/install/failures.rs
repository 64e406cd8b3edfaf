//! What stands in the way of an installation is named, and everything is as it was before.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::stage::{bare_host, install, is_unchanged, snapshot, CONTAINERD_CONFIG, CONTAINERD_FILE};
use crate::framework::recipe::Equipment;
use crate::framework::{Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] = &[
    Case { name: "install: a broken configuration is named", run: |ctx| broken(ctx).into() },
    Case { name: "install: an import that hides ours is named", run: |ctx| hidden(ctx).into() },
    Case { name: "install: a full disk and a read-only one change nothing", run: |ctx| disks(ctx).into() },
    Case { name: "install: killed at any moment, it is taken back", run: |ctx| killed(ctx).into() },
];

/// Fails unless the installation fails with all of these words, and changes nothing.
fn refused(host: &Host, words: &[&str]) -> Result<()> {
    let before = snapshot(host)?;
    let output = install(host, &[]).output()?;
    let said = output.err();
    ensure!(output.status.code() == Some(1), "it did not fail: {output:?}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in {said:?}");
    }
    is_unchanged(host, &before)
}

fn broken(ctx: &Ctx) -> Result<()> {
    let host = bare_host(ctx, Generation::Trixie, Equipment::Clients)?;
    host.write_file(CONTAINERD_FILE, format!("{CONTAINERD_CONFIG}\n[plugins.x\n"))?;
    refused(&host, &["/etc/containerd/config.toml, line 13: ", "correct it"])?;
    host.write_file(CONTAINERD_FILE, CONTAINERD_CONFIG)?;

    host.write_file("/etc/docker/daemon.json", "{\n  \"debug\": true,\n}\n")?;
    refused(&host, &["/etc/docker/daemon.json, line 3: ", "correct it"])?;
    // Well-formed, but nothing that dockerd would start with.
    host.write_file("/etc/docker/daemon.json", "{ \"no-such-setting\": 1 }\n")?;
    refused(&host, &["dockerd refuses", "/etc/docker/daemon.json", "no-such-setting", "as it was before"])
}

/// containerd 1.7 replaces a section by what it imports: the handlers would be there, and not in force.
fn hidden(ctx: &Ctx) -> Result<()> {
    let host = bare_host(ctx, Generation::Trixie, Equipment::Plain)?;
    host.write_file(
        CONTAINERD_FILE,
        format!("imports = [\"/etc/containerd/more.toml\"]\n{CONTAINERD_CONFIG}"),
    )?;
    let section = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  enable_selinux = false\n";
    host.write_file("/etc/containerd/more.toml", section)?;
    refused(&host, &["containerd refuses", "imports", "as it was before"])
}

fn disks(ctx: &Ctx) -> Result<()> {
    let host = bare_host(ctx, Generation::Forky, Equipment::Plain)?;
    host.sh(
        "mkdir /usr/lib/fastmig/runtime/criu && mount -t tmpfs -o size=4m none /usr/lib/fastmig/runtime/criu",
    )
    .ok()?;
    refused(
        &host,
        &["/usr/lib/fastmig/runtime/criu/", "No space left", "free some space", "as it was before"],
    )?;
    let left = host.sh("find /usr/lib/fastmig/runtime/criu -type f").ok()?;
    ensure!(left.is_empty(), "left on the full disk: {left}");
    host.sh("umount /usr/lib/fastmig/runtime/criu && rmdir /usr/lib/fastmig/runtime/criu").ok()?;

    // A page for the file that is there, and none for the next one; a journal that grows beyond its disk.
    let small = "mount -t tmpfs -o size=4k none";
    host.sh(&format!(
        "cp -a /etc/containerd /tmp/c && {small} /etc/containerd && cp -a /tmp/c/. /etc/containerd"
    ))
    .ok()?;
    refused(&host, &["/etc/containerd/config.toml", "No space left", "as it was before"])?;
    host.sh("umount /etc/containerd").ok()?;
    host.sh("mount -t tmpfs -o size=16k none /var/lib/fastmig").ok()?;
    refused(&host, &["/var/lib/fastmig/install", "No space left", "as it was before"])?;
    host.sh("umount /var/lib/fastmig").ok()?;

    host.sh("mount --bind /etc/containerd /etc/containerd && mount -o remount,bind,ro /etc/containerd")
        .ok()?;
    refused(&host, &["/etc/containerd/config.toml", "Read-only", "make it writable", "as it was before"])?;
    host.sh("umount /etc/containerd").ok()?;
    install(&host, &[]).ok().map(drop)
}

fn killed(ctx: &Ctx) -> Result<()> {
    let host = bare_host(ctx, Generation::Forky, Equipment::Plain)?;
    let before = snapshot(&host)?;
    let mut interrupted = 0;
    for delay in (0..24).map(|step| Duration::from_millis(10 * step)) {
        let run = install(&host, &[]).spawn()?;
        std::thread::sleep(delay);
        drop(run);
        // A zombie, until the test reaps it, does nothing more.
        host.sh("while ps -C fastmig -o stat= | grep -qv Z; do sleep 0.01; done").ok()?;
        let undone = install(&host, &["--uninstall"]).ok()?;
        interrupted += usize::from(undone.contains("interrupted"));
        is_unchanged(&host, &before).with_context(|| format!("killed after {delay:?}"))?;
    }
    ensure!(interrupted > 0, "no run was killed on its way");
    // One more, which the next installation completes.
    install(&host, &[]).ok()?;
    install(&host, &["--uninstall"]).ok()?;
    is_unchanged(&host, &before)
}
