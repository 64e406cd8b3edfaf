//! docker, podman and nerdctl in a host of [`super::Equipment::Clients`]: their settings, their data, their start.
//!
//! The settings are those of a machine without systemd: cgroupfs, logs in files. Data is in memory: overlayfs takes no upper
//! directory on the host's own overlay, and CRIU finds the mounts of a container best on a file system of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use super::host::Host;
use super::image::reference;
use super::install::PROGRAMS_DIR;
use super::process::wait_until;
use super::progress::step;

/// dockerd's log in the host.
pub const DOCKER_LOG: &str = "/var/log/dockerd.log";

/// FastMig's OCI runtime in a host.
pub const RUNTIME: &str = "/usr/local/bin/fastmig";

/// docker's name for FastMig's containerd shim; its name for the OCI runtime is `fastmig`.
pub const DOCKER_SHIM: &str = "fastmig-shim";

const START_LIMIT: Duration = Duration::from_secs(40);
const LOAD_LIMIT: Duration = Duration::from_secs(180);

/// Images on their way from containerd to the others; on disk, not in memory.
const ARCHIVE: &str = "/var/lib/fastmig/images.tar";

/// Where the clients keep images and containers.
const DATA: &[&str] = &["/var/lib/docker", "/var/lib/containers", "/var/lib/nerdctl"];

/// Checkpoints are among docker's experimental commands.
const DOCKER_SETTINGS: &str = r#"{
  "experimental": true,
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "shutdown-timeout": 2,
  "runtimes": {
    "fastmig": { "path": "/usr/local/bin/fastmig" },
    "fastmig-shim": { "runtimeType": "io.containerd.fastmig.v1" }
  }
}
"#;

const PODMAN_SETTINGS: &str = r#"[containers]
log_driver = "k8s-file"

[engine]
env = ["PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

/// What FastMig ships.
const PODMAN_DROP_IN: &str = include_str!("../../../containerd-config/podman.conf");

/// podman looks for images at docker's registry, and loads them without asking for a signature.
const PODMAN_REGISTRIES: &str = "unqualified-search-registries = [\"docker.io\"]\n";
const PODMAN_POLICY: &str = r#"{ "default": [ { "type": "insecureAcceptAnything" } ] }
"#;

impl Host {
    /// Writes the clients' settings, starts dockerd on the host's containerd, and waits until it answers.
    pub fn start_clients(&self) -> Result<()> {
        for dir in DATA {
            let mount = format!(
                "mountpoint -q {dir} || {{ mkdir -p {dir} && mount -t tmpfs -o mode=711 none {dir}; }}"
            );
            self.sh(&mount).ok()?;
        }
        self.write_file("/etc/docker/daemon.json", DOCKER_SETTINGS)?;
        self.write_file("/etc/containers/containers.conf", PODMAN_SETTINGS)?;
        self.write_file("/etc/containers/containers.conf.d/50-fastmig.conf", PODMAN_DROP_IN)?;
        self.write_file("/etc/containers/registries.conf", PODMAN_REGISTRIES)?;
        self.write_file("/etc/containers/policy.json", PODMAN_POLICY)?;
        if let Some(nerdctl) = nerdctl() {
            let target = self.outside(PROGRAMS_DIR).join("nerdctl");
            std::fs::copy(&nerdctl, target).with_context(|| format!("cannot copy {}", nerdctl.display()))?;
        }
        step(&format!("host {}: dockerd", self.name()), || self.start_docker())?;
        self.mark_baseline()
    }

    /// Gives docker and podman images that containerd has; nerdctl shares containerd's.
    pub fn share_images(&self, names: &[&str]) -> Result<()> {
        let references: Vec<String> = names.iter().map(|name| reference(name)).collect();
        // docker reads no plain OCI layout: containerd writes what both understand. Without --local, containerd 2.1 writes
        // a truncated archive now and then, and says nothing.
        let export = ["ctr", "images", "export", "--local", ARCHIVE].map(String::from);
        let export = [export.to_vec(), references].concat();
        self.cmd(export).timeout(LOAD_LIMIT).ok()?;
        let into = |client: &str| {
            step(&format!("host {}: images for {client}", self.name()), || {
                self.cmd([client, "load", "-q", "-i", ARCHIVE]).timeout(LOAD_LIMIT).ok().map(drop)
            })
        };
        std::thread::scope(|scope| {
            let docker = scope.spawn(|| into("docker"));
            into("podman")?;
            docker.join().unwrap_or_else(|_| bail!("the thread that fills docker panicked"))
        })?;
        self.cmd(["rm", ARCHIVE]).ok().map(drop)
    }

    /// Ends dockerd, and starts it with the settings that are there.
    pub fn restart_docker(&self) -> Result<()> {
        let script =
            "pid=$(cat /run/docker.pid) && kill $pid && while test -d /proc/$pid; do sleep 0.05; done";
        self.sh(script).ok().context("cannot end dockerd")?;
        self.start_docker()
    }

    fn start_docker(&self) -> Result<()> {
        let script = format!(
            "setsid dockerd --containerd /run/containerd/containerd.sock >>{DOCKER_LOG} 2>&1 </dev/null &"
        );
        self.sh(&script).ok()?;
        let answers = || self.cmd(["docker", "version"]).output().is_ok_and(|output| output.status.success());
        wait_until(START_LIMIT, answers).with_context(|| {
            let log = self.cmd(["tail", "-n", "20", DOCKER_LOG]).ok().unwrap_or_default();
            format!("dockerd does not answer on host {}; its log ends:\n{log}", self.name())
        })
    }
}

/// The real nerdctl of this machine: Debian has no package of it. `FASTMIG_NERDCTL` names it, else it is looked for in PATH.
pub fn nerdctl() -> Option<PathBuf> {
    let named = std::env::var_os("FASTMIG_NERDCTL").map(PathBuf::from);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut candidates =
        named.into_iter().chain(path.split(':').map(|dir| PathBuf::from(dir).join("nerdctl")));
    candidates.find(|candidate| candidate.is_file())
}
