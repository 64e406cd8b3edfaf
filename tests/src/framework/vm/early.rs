//! What a kernel needs before it finds its disk.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::guest::{copy, script, write_archive, write_module};
use super::kernel::Tree;
use crate::framework::cache::Cache;

/// What a disk of the emulator's takes and is not built in, each after those that it needs.
const MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"];

const COMMANDS: &[&str] = &["insmod", "mount", "sh", "sleep", "switch_root"];

const INIT: &str = "#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
for each in /modules/*; do insmod $each; done
turn=0
while [ ! -b /dev/vda ] && [ $turn -lt 300 ]; do sleep 0.1; turn=$((turn+1)); done
mount -t ext4 -o rw,noatime /dev/vda /root
mount -o move /dev /root/dev
exec switch_root /root /sbin/init
";

/// The archive that goes with `kernel`, made when the cache has none.
///
/// # Errors
/// When a file cannot be read or written.
pub fn archive(cache: &Cache, kernel: &Tree) -> Result<std::path::PathBuf> {
    let name = format!("early-{}", kernel.version);
    let recipe = format!("{kernel:?}\n{INIT}\n{MODULES:?}\n{COMMANDS:?}");
    cache.get("disks", &name, &recipe, |target| {
        let scratch = tempfile::tempdir()?;
        fill(kernel, scratch.path())?;
        write_archive(&kernel.busybox, scratch.path(), target)
    })
}

fn fill(kernel: &Tree, scratch: &Path) -> Result<()> {
    for name in ["bin", "dev", "modules", "root"] {
        fs::create_dir(scratch.join(name))?;
    }
    copy(&kernel.busybox, &scratch.join("bin/busybox"))?;
    for command in COMMANDS {
        std::os::unix::fs::symlink("busybox", scratch.join("bin").join(command))?;
    }
    for (place, module) in kernel.find(&MODULES)?.iter().enumerate() {
        write_module(module, &scratch.join("modules"), place)?;
    }
    script(&scratch.join("init"), INIT)
}
