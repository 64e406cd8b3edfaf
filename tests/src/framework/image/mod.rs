//! The container images that the suites run: made of Debian packages, unmodified, and kept in the cache.
//!
//! [`recipe`] says what is in them, but for [`programs`], which holds our own; [`layer`] turns a tree into a layer, [`layout`] writes what `ctr images import` reads.

pub mod layer;
pub mod layout;
pub mod programs;
pub mod recipe;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use self::layer::Layer;
use self::recipe::{App, APPS};
use super::cache::Cache;
use super::command::Cmd;
use super::host::Host;
use super::mounts::remove_tree;
use super::progress::step;
use super::rootfs;

/// Changes when the way of making images does.
const REVISION: u32 = 1;

const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// Installs packages into an overlay over the base. It runs in a mount namespace of its own, so that no mount survives it.
/// Arguments: the base, the directory of the overlay, the packages, the scripts before and after.
const INSTALL: &str = r#"
set -e
root=$2/root
mkdir -p "$root" "$2/upper" "$2/work"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work,redirect_dir=off,metacopy=off" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
chroot "$root" sh -ec "$4"
chroot "$root" apt-get update -q
chroot "$root" apt-get install -q -y --no-install-recommends $3
chroot "$root" sh -ec "$5"
rm "$root/usr/sbin/policy-rc.d"
"#;

/// The name of an image in containerd.
pub fn reference(name: &str) -> String {
    format!("docker.io/library/{name}:1")
}

/// The names of all images.
pub fn names() -> Vec<&'static str> {
    APPS.iter().map(|app| app.name).chain([programs::NAME]).collect()
}

/// The archive of the image `name`, made when the cache has none.
pub fn archive(cache: &Cache, name: &str) -> Result<PathBuf> {
    if name == programs::NAME {
        return programs::archive(cache);
    }
    let app =
        APPS.iter().find(|app| app.name == name).with_context(|| format!("there is no image {name}"))?;
    archive_of(cache, app)
}

/// The archive of an image that only one suite needs, made when the cache has none.
pub(crate) fn archive_of(cache: &Cache, app: &App) -> Result<PathBuf> {
    let name = app.name;
    let base = rootfs::root(cache, app.base.name, &app.base.recipe)?;
    let recipe = format!("{REVISION}\n{}\n{app:?}", base.display());
    cache.get("images", name, &recipe, |target| build(cache, app, &base, target))
}

fn build(cache: &Cache, app: &App, base: &Path, target: &Path) -> Result<()> {
    let mut layers = vec![base_layer(cache, app.base.name, base)?];
    let scratch = cache.root().join("images").join(format!(".{}.build", app.name));
    remove_tree(&scratch)?;
    fs::create_dir_all(&scratch)?;
    if !app.packages.is_empty() {
        install(app.packages, app.before, app.after, base, &scratch)?;
        layers.push(Layer::write(&scratch.join("upper"), &scratch.join("layer.tar"))?);
    }
    let config = app.config(&scratch.join("upper"))?;
    layout::write(target, &reference(app.name), &config, &layers)?;
    remove_tree(&scratch)
}

/// The tree of busybox alone, for what is no image.
pub(crate) fn busybox_tree(cache: &Cache) -> Result<PathBuf> {
    rootfs::root(cache, recipe::BUSYBOX.name, &recipe::BUSYBOX.recipe)
}

/// The first layer, which images of one base share.
fn base_layer(cache: &Cache, name: &str, base: &Path) -> Result<Layer> {
    let recipe = format!("{REVISION}\n{}", base.display());
    let dir = cache.get("layers", name, &recipe, |target| {
        fs::create_dir(target)?;
        Layer::write(base, &target.join("layer.tar"))?.save(&target.join("layer.json"))
    })?;
    Layer::load(&dir.join("layer.json"), &dir.join("layer.tar"))
}

fn install(packages: &[&str], before: &str, after: &str, base: &Path, scratch: &Path) -> Result<()> {
    let (base, scratch) = base.to_str().zip(scratch.to_str()).context("a path that is not UTF-8")?;
    let packages = packages.join(" ");
    let shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSTALL, "sh"];
    let arguments = [base, scratch, &packages, before, after];
    let command = Cmd::new(shell.into_iter().chain(arguments)).env("DEBIAN_FRONTEND", "noninteractive");
    command.env("LC_ALL", "C.UTF-8").timeout(BUILD_LIMIT).ok().map(drop)
}

/// Compiles `source` with a compiler that no image has: in a Debian tree with `packages`, by `script`, which finds it as
/// `/out/NAME` and leaves its results beside it; they are copied to the directory `target`.
pub(crate) fn compile_in_tree(
    cache: &Cache,
    packages: &[&str],
    script: &str,
    (name, source): (&str, &str),
    target: &Path,
) -> Result<()> {
    let base = rootfs::root(cache, recipe::DEBIAN.name, &recipe::DEBIAN.recipe)?;
    let scratch = cache.root().join("fixtures").join(format!(".{name}.build"));
    remove_tree(&scratch)?;
    let out = scratch.join("upper/out");
    fs::create_dir_all(&out)?;
    fs::write(out.join(name), source)?;
    install(packages, recipe::JAVA_MANUALS, script, &base, &scratch)?;
    fs::remove_file(out.join(name))?;
    super::bundle::copy_tree(&out, target)?;
    remove_tree(&scratch)
}

impl Host {
    /// Imports images into containerd's default namespace, as [`reference()`] names them.
    pub fn import_images(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let source = archive(&self.cache, name)?;
            // Named after its recipe: an older one may lie there still.
            let file =
                source.file_name().and_then(|file| file.to_str()).context("a path that is not UTF-8")?;
            let shared = self.shared_dir().join(file);
            if !shared.exists() {
                fs::hard_link(&source, &shared).or_else(|_| fs::copy(&source, &shared).map(drop))?;
            }
            let path = format!("/shared/{file}");
            step(&format!("host {}: image {name}", self.name()), || {
                self.cmd(["ctr", "images", "import", &path]).timeout(Duration::from_secs(180)).ok()
            })?;
        }
        Ok(())
    }

    /// Whether containerd has this image.
    pub fn has_image(&self, name: &str) -> Result<bool> {
        let filter = format!("name=={}", reference(name));
        Ok(!self.cmd(["ctr", "images", "ls", "-q", &filter]).ok()?.trim().is_empty())
    }

    /// Removes an image from containerd, and what only it needed.
    pub fn forget_image(&self, name: &str) -> Result<()> {
        self.cmd(["ctr", "images", "rm", "--sync", &reference(name)]).ok().map(drop)
    }
}
