//! The box of `vagrant/Vagrantfile`: the same disk, kernel and package as those of the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{early, machine, system, Kernel};
use crate::framework::cache::Cache;
use crate::framework::dist::target_dir;
use crate::framework::mounts::remove_tree;
use crate::framework::{deb, image, tools, Cmd};

/// For the disk to be compressed.
const LIMIT: Duration = Duration::from_secs(600);

const METADATA: &str = r#"{"provider": "libvirt", "format": "qcow2", "virtual_size": 6}"#;

/// What a box says of itself; the rest is in the repository's.
const IN_BOX: &str =
    "Vagrant.configure(\"2\") { |config| config.vm.provider(:libvirt) { |l| l.disk_bus = \"virtio\" } }\n";

/// Makes the box, and what `vagrant/Vagrantfile` wants beside it, with these images; answers where.
///
/// # Errors
/// When a part cannot be made.
pub fn make(cache: &Cache, images: &[&str]) -> Result<PathBuf> {
    machine::prepare()?;
    tools::ensure(&[("qemu-img", "qemu-utils")])?;
    let target = target_dir().join("vagrant");
    remove_tree(&target)?;
    let payload = target.join("payload");
    fs::create_dir_all(&payload)?;
    fs::copy(deb::build(cache)?, payload.join("fastmig.deb"))?;
    for name in images {
        fs::copy(image::archive(cache, name)?, payload.join(format!("{name}.tar")))?;
    }
    let key = target.join("key");
    Cmd::new(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vagrant", "-f", text(&key)?]).ok()?;
    fs::copy(&key, payload.join("key"))?;
    fs::set_permissions(payload.join("key"), fs::Permissions::from_mode(0o600))?;
    let kernel = Kernel::Trixie.tree(cache)?;
    fs::copy(&kernel.image, target.join("kernel"))?;
    fs::copy(early::archive(cache, &kernel)?, target.join("early"))?;
    pack(&system::disk(cache)?, &target)?;
    Ok(target)
}

fn pack(disk: &Path, target: &Path) -> Result<()> {
    let scratch = target.join("box");
    fs::create_dir(&scratch)?;
    fs::write(scratch.join("metadata.json"), METADATA)?;
    fs::write(scratch.join("Vagrantfile"), IN_BOX)?;
    let image = scratch.join("box.img");
    let convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", text(disk)?, text(&image)?];
    Cmd::new(convert).timeout(LIMIT).ok()?;
    let out = target.join("fastmig.box");
    let tar = ["tar", "-cf", text(&out)?, "-C", text(&scratch)?, "metadata.json", "Vagrantfile", "box.img"];
    Cmd::new(tar).timeout(LIMIT).ok()?;
    remove_tree(&scratch)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
