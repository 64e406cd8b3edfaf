//! The programs as they are shipped: release builds, the init static and small, gathered in one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{bail, Context, Result};

use super::cache::lock_file;
use super::command::Cmd;

/// The programs of a host, built for the machine's own C library.
const PROGRAMS: &[&str] =
    &["containerd-shim-fastmig-v1", "fastmig", "fastmigd", "fastmig-store", "fastmig-hook", "fastmig-report"];

/// The packages that hold them.
const PACKAGES: &[&str] =
    &["containerd-shim-fastmig", "fastmig", "fastmigd", "fastmig-store", "fastmig-hooks", "fastmig-report"];

const INIT: &str = "fastmig-init";
const TEST_PROGRAMS: &str = "fastmig-test-programs";

/// For what runs in containers, whatever is in their images.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Static, and not position-independent: a smaller program that starts faster.
const STATIC_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// The library that CRIU is started under: small, and without anything that the bundle has not.
const VIEW_PACKAGE: &str = "fastmig-criu-view";
const VIEW: &str = "libfastmig_view.so";

/// The root of the repository: of the one that cargo runs us from, for two checkouts may share a target directory.
pub fn repository() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.parent().map_or_else(|| package.clone(), Path::to_owned)
}

/// The cargo that runs this program, else the one in the path.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// The target directory of the workspace.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository().join("target"), |dir| repository().join(dir))
}

/// Where [`build`] puts the programs: `bin` goes into a host's path, `libexec` into its runtime directory.
pub fn dist_dir() -> PathBuf {
    target_dir().join("dist")
}

/// Builds all programs and answers the directory that holds them. One process builds once: what a run of tests began
/// with, it ends with. Two processes may ask at once.
pub fn build() -> Result<PathBuf> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let dist = dist_dir();
    if *built {
        return Ok(dist);
    }
    fs::create_dir_all(&dist)?;
    let _alone = lock_file(&dist.join(".lock"))?;
    build_programs(&dist.join("bin"))?;
    build_init(&dist.join("libexec"))?;
    view()?;
    write_share(&dist)?;
    *built = true;
    Ok(dist)
}

fn build_programs(out: &Path) -> Result<()> {
    let mut arguments = vec!["build", "--release"];
    arguments.extend(PACKAGES.iter().flat_map(|package| ["-p", package]));
    run(Cmd::new([&[cargo().as_str()], arguments.as_slice()].concat()))?;
    for program in PROGRAMS {
        copy(&target_dir().join("release").join(program), out)?;
    }
    Ok(())
}

/// Manual pages and completions, which the program itself knows. They appear at once, or stay: another run may read them.
fn write_share(dist: &Path) -> Result<()> {
    let (program, share, part) = (dist.join("bin/fastmig"), dist.join("share"), dist.join("share.part"));
    let age = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    if matches!((age(&share), age(&program)), (Ok(share), Ok(program)) if share > program) {
        return Ok(());
    }
    super::mounts::remove_tree(&part)?;
    let words = [program.to_str(), Some("share"), part.to_str()];
    run(Cmd::new(words.map(|word| word.unwrap_or_default())))?;
    super::mounts::remove_tree(&share)?;
    Ok(fs::rename(&part, &share)?)
}

fn build_init(out: &Path) -> Result<()> {
    copy(&build_static(INIT, "tiny", "init")?, out)
}

/// Builds the programs whose memory the tests move, in one file; answers it. One process builds once, as in [`build`].
pub fn build_test_programs() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.is_none() {
        *built = Some(build_static(TEST_PROGRAMS, "release", "programs")?);
    }
    built.clone().context("nothing was built")
}

/// In the target directory `name`, for its flags would rebuild what the others share with it.
fn build_static(package: &str, profile: &str, name: &str) -> Result<PathBuf> {
    let target = target_dir().join(name);
    let directory = target.to_str().context("a path that is not UTF-8")?;
    let argv = [
        &cargo(),
        "build",
        "--profile",
        profile,
        "-p",
        package,
        "--target",
        STATIC_TARGET,
        "--target-dir",
        directory,
    ];
    run(Cmd::new(argv).env("RUSTFLAGS", STATIC_FLAGS))?;
    Ok(target.join(STATIC_TARGET).join(profile).join(package))
}

/// Builds the library that CRIU is started under, and answers where it is.
pub fn view() -> Result<PathBuf> {
    run(Cmd::new([&cargo(), "build", "--profile", "tiny", "-p", VIEW_PACKAGE]))?;
    Ok(target_dir().join("tiny").join(VIEW))
}

fn run(command: Cmd) -> Result<()> {
    let root = repository();
    let command = command.dir(root.to_str().context("a path that is not UTF-8")?);
    let status = command.pass_through()?;
    if !status.success() {
        bail!("`{}` ended with {status}", command.line());
    }
    Ok(())
}

fn copy(program: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    let target = out.join(program.file_name().context("a program without a name")?);
    // Another run of tests may be reading what was copied for it.
    if holds_the_same(program, &target) {
        return Ok(());
    }
    let part = target.with_extension("part");
    fs::copy(program, &part).with_context(|| format!("cannot copy {}", program.display()))?;
    Ok(fs::rename(&part, &target)?)
}

fn holds_the_same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(a), Ok(b)) if a == b)
}
