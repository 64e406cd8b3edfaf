//! The Debian package: the programs as they are shipped, the CRIU bundle and the configurations, put together by
//! cargo-deb.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::bundle::{self, copy_tree};
use super::cache::{lock_file, Cache};
use super::command::Cmd;
use super::dist::{self, cargo, repository, target_dir};
use super::install::PROGRAMS_DIR;
use super::mounts::remove_tree;
use super::progress::long_step;

/// Where the package's metadata lies.
const PACKAGE: &str = "fastmig";

/// Where a package has its programs.
const PACKAGED_DIR: &str = "/usr/bin";

/// The files that the package ships beside FastMig's own settings.
const CONFIGURATIONS: &[&str] =
    &["containerd-1.7.toml", "containerd-2.toml", "docker-daemon.json", "podman.conf", "runtimeclass.yaml"];

/// The daemon's service.
const UNIT: &str = "packaging/systemd/fastmigd.service";

/// The cargo-deb that is installed where there is none.
const TOOL_VERSION: &str = "3.8.0";

const BUILD_LIMIT: Duration = Duration::from_secs(300);
const TOOL_LIMIT: Duration = Duration::from_secs(900);

/// Builds everything, and the package of it, once in a process; answers where it is.
pub fn build(cache: &Cache) -> Result<PathBuf> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let package = dist::dist_dir().join("fastmig.deb");
    if !*built {
        build_package(cache, &package)?;
        *built = true;
    }
    Ok(package)
}

fn build_package(cache: &Cache, out: &Path) -> Result<()> {
    let dist = dist::build()?;
    // Two suites may want it at the same time.
    let _alone = lock_file(&dist.join(".deb.lock"))?;
    bundle::export(cache, &dist.join("libexec"))?;
    ensure_tool()?;
    // cargo-deb finds what begins with target/release in the true target directory.
    let staged = target_dir().join("release").join("deb");
    stage(&dist, &staged)?;
    let path = out.to_str().context("a path that is not UTF-8")?;
    let argv = [&cargo(), "deb", "-p", PACKAGE, "--no-build", "--no-strip", "--output", path];
    let root = repository();
    let root = root.to_str().context("a path that is not UTF-8")?;
    long_step("building the Debian package", || Cmd::new(argv).dir(root).timeout(BUILD_LIMIT).ok())?;
    Ok(())
}

fn stage(dist: &Path, staged: &Path) -> Result<()> {
    remove_tree(staged)?;
    fs::create_dir_all(staged.join("config"))?;
    copy_tree(&dist.join("bin"), &staged.join("bin"))?;
    copy_tree(&dist.join("libexec"), &staged.join("runtime"))?;
    copy_tree(&dist.join("share"), &staged.join("share"))?;
    for name in CONFIGURATIONS {
        let text = fs::read_to_string(repository().join("containerd-config").join(name))
            .with_context(|| format!("cannot read {name}"))?;
        fs::write(staged.join("config").join(name), text.replace(PROGRAMS_DIR, PACKAGED_DIR))?;
    }
    let unit = fs::read_to_string(repository().join(UNIT)).with_context(|| format!("cannot read {UNIT}"))?;
    fs::create_dir_all(staged.join("systemd"))?;
    fs::write(staged.join("systemd/fastmigd.service"), unit.replace(PROGRAMS_DIR, PACKAGED_DIR))?;
    Ok(())
}

fn ensure_tool() -> Result<()> {
    let is_there =
        Cmd::new([&cargo(), "deb", "--version"]).output().is_ok_and(|output| output.status.success());
    if is_there {
        return Ok(());
    }
    long_step("installing cargo-deb", || {
        Cmd::new([&cargo(), "install", "--locked", "--version", TOOL_VERSION, "cargo-deb"])
            .timeout(TOOL_LIMIT)
            .ok()
            .map(drop)
    })
}
