//! Programs of this machine that the framework needs, installed when missing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache::lock_file;
use super::command::Cmd;
use super::progress::long_step;

/// Programs that every host needs on the machine that makes it, and the Debian packages that hold them.
pub const FOR_HOSTS: &[(&str, &str)] =
    &[("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux")];

/// Programs that build a root file system.
pub const FOR_ROOTS: &[(&str, &str)] = &[("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")];

/// Programs that compile the fixtures.
pub const FOR_FIXTURES: &[(&str, &str)] = &[("gcc", "gcc"), ("as", "binutils")];

/// Programs that emulate machines.
pub const FOR_MACHINES: &[(&str, &str)] = &[
    ("mke2fs", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ssh", "openssh-client"),
    ("unshare", "util-linux"),
    ("xz", "xz-utils"),
];

/// Installs the packages of those programs that are missing.
pub fn ensure(programs: &[(&str, &'static str)]) -> Result<()> {
    if missing(programs).is_empty() {
        return Ok(());
    }
    // Two suites may install at the same time, or the same.
    let _alone = lock_file(&std::env::temp_dir().join("fastmig-tools.lock"))?;
    let mut missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    if missing.contains(&"gcc") {
        missing.push("libc6-dev");
    }
    long_step(&format!("installing {} with apt-get", missing.join(" ")), || {
        apt_get(&["update", "-q"])?;
        apt_get(&[&["install", "-q", "-y", "--no-install-recommends"], missing.as_slice()].concat())
    })
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut missing: Vec<_> =
        programs.iter().filter(|(name, _)| !is_installed(name)).map(|(_, package)| *package).collect();
    missing.dedup();
    missing
}

fn apt_get(args: &[&str]) -> Result<()> {
    let command = Cmd::new([&["apt-get"], args].concat()).env("DEBIAN_FRONTEND", "noninteractive");
    command
        .timeout(Duration::from_secs(600))
        .ok()
        .context("apt-get failed; the tests need Debian, root and a mirror")?;
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut dirs = path.split(':').chain(["/usr/sbin", "/sbin"]);
    dirs.any(|dir| Path::new(dir).join(program).is_file())
}
