//! A host as a Kubernetes node without its kubelet: containerd with its CRI plugin, a network for pods, a registry, and the
//! runtime handlers to compare.

use std::sync::Arc;

use anyhow::Result;

use super::images::SANDBOX;
use super::registry::{self, ADDRESS};
use super::tools::{self, CRICTL, CRITEST, CRITEST_OWN_PIDS};
use crate::framework::bundle::copy_tree;
use crate::framework::install::PROGRAMS_DIR;
use crate::framework::{dist, Generation, Host, Session};

/// The handlers: stock runc, the stock shim with FastMig's OCI runtime, and FastMig's shim as the shipped drop-ins name it,
/// under its own type and under that of the stock shim.
pub(super) const RUNC: &str = "runc";
pub(super) const WRAPPER: &str = "fastmig-oci";
pub(super) const SHIM: &str = "fastmig";
pub(super) const SHIM_AS_RUNC: &str = "fastmig-as-runc";

const SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Where a host has what containerd asks of a registry it knows nothing of.
const MIRROR: &str = "/etc/containerd/certs.d/_default/hosts.toml";

/// The pods' network, as any node has one.
const NETWORK: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}"#;

/// The host `name` as such a node; the cases of one run share it.
pub(super) fn node(session: &Session, name: &str, generation: Generation) -> Result<Arc<Host>> {
    let host = session.host(name, generation)?;
    if host.cmd([CRICTL, "version"]).output()?.status.success() {
        return Ok(host);
    }
    host.install(&dist::build()?)?;
    for program in [CRICTL, CRITEST, CRITEST_OWN_PIDS] {
        let source = tools::programs(session.cache())?.join(program);
        copy_tree(&source, &host.outside(PROGRAMS_DIR).join(program))?;
    }
    // Mounts of containers propagate only from a shared root, as every real host has it.
    host.cmd(["mount", "--make-rshared", "/"]).ok()?;
    registry::start(&host)?;
    host.write_file("/etc/cni/net.d/10-pods.conflist", NETWORK)?;
    host.write_file("/etc/crictl.yaml", format!("runtime-endpoint: {SOCKET}\nimage-endpoint: {SOCKET}\n"))?;
    host.write_file(MIRROR, mirror())?;
    host.write_file("/etc/containerd/config.toml", config(generation))?;
    host.start_configured_containerd()?;
    Ok(host)
}

/// Every registry is the host's own.
fn mirror() -> String {
    format!("server = \"http://{ADDRESS}\"\n[host.\"http://{ADDRESS}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

/// A node's settings with the shipped drop-in behind them. Where root lacks CAP_SYS_RESOURCE, a sandbox with the score that CRI
/// gives it cannot start, unless it is restricted.
fn config(generation: Generation) -> String {
    let sandbox = format!("{ADDRESS}/{SANDBOX}");
    match generation {
        Generation::Trixie => format!(
            r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
{}"#,
            tables(include_str!("../../../../../containerd-config/containerd-1.7.toml"))
        ),
        Generation::Forky => format!(
            r#"version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{sandbox}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
{}"#,
            tables(include_str!("../../../../../containerd-config/containerd-2.toml"))
        ),
    }
}

/// A drop-in without its version, which the configuration before it has said.
fn tables(drop_in: &str) -> String {
    drop_in.lines().filter(|line| !line.starts_with("version")).collect::<Vec<_>>().join("\n")
}
