//! What the cases stand on: a host without FastMig, a build of it that the host can reach, and what all of the host's
//! files were like.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{ensure, Context, Result};

use crate::framework::command::Cmd;
use crate::framework::recipe::Equipment;
use crate::framework::{bundle, dist, Ctx, Generation, Host};

/// The build, as hosts see it.
pub(super) const DIST: &str = "/shared/dist";

/// Directories whose every file is looked at.
const WATCHED: &str = "/etc /usr /opt /root /srv /var/lib/fastmig /var/log/fastmig /var/lib/dpkg/info";

/// What Debian 13 and 14 ship, and a line of the operator's.
pub(super) const CONTAINERD_CONFIG: &str = r#"version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    # The operator's own.
    max_container_log_line_size = 4242
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"#;

pub(super) const CONTAINERD_FILE: &str = "/etc/containerd/config.toml";

/// Puts a build where a host finds it.
fn provide(ctx: &Ctx, host: &Host) -> Result<()> {
    let source = dist::build()?;
    bundle::export(ctx.session()?.cache(), &source.join("libexec"))?;
    let target = host.shared_dir().join("dist");
    if !target.exists() {
        let source = source.to_str().context("a path that is not UTF-8")?;
        let target = target.to_str().context("a path that is not UTF-8")?;
        Cmd::new(["cp", "-a", "--", source, target]).ok()?;
    }
    Ok(())
}

/// A host of the caller's alone, without the CRIU that the framework puts into every host.
pub(super) fn bare_host(ctx: &Ctx, generation: Generation, equipment: Equipment) -> Result<Host> {
    let host = ctx.session()?.fresh_equipped_host("bare", generation, equipment)?;
    provide(ctx, &host)?;
    host.sh("rm -rf /usr/lib/fastmig/runtime/criu").ok()?;
    host.write_file(CONTAINERD_FILE, CONTAINERD_CONFIG)?;
    Ok(host)
}

/// `fastmig install` from the build, with these options.
pub(super) fn install(host: &Host, options: &[&str]) -> Cmd {
    let program = format!("{DIST}/bin/fastmig");
    host.cmd([&[program.as_str(), "install"], options].concat())
}

/// Each file's path, kind, mode, owner, size, time of change and target; a checksum, where FastMig changes files.
pub(super) fn snapshot(host: &Host) -> Result<BTreeSet<String>> {
    let script = format!(
        "find {WATCHED} -xdev -type d -printf '%p %y %m %U %G\\n' -o -printf '%p %y %m %U %G %s %T@ %l\\n' 2>/dev/null; \
         find /etc /usr/local /usr/lib/fastmig -xdev -type f -exec sha256sum {{}} +"
    );
    let listing = host.sh(&script).output()?.out();
    let snapshot: BTreeSet<String> = listing.lines().map(str::to_owned).collect();
    ensure!(snapshot.len() > 1000, "a host has more than {} files", snapshot.len());
    Ok(snapshot)
}

/// Fails unless the host is as it was.
pub(super) fn is_unchanged(host: &Host, before: &BTreeSet<String>) -> Result<()> {
    let now = snapshot(host)?;
    let lost: Vec<&String> = before.difference(&now).collect();
    let new: Vec<&String> = now.difference(before).collect();
    ensure!(lost.is_empty() && new.is_empty(), "not as before: gone {lost:#?}, new {new:#?}");
    Ok(())
}

/// A shipped configuration.
pub(super) fn shipped(name: &str) -> Result<String> {
    let path = dist::repository().join("containerd-config").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
