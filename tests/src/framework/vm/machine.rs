//! QEMU, from power on to power off.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::fcntl::Flock;

use super::guest::OVER;
use super::{Guest, Kernel};
use crate::framework::cache::{lock_file, Cache};
use crate::framework::command::last_lines;
use crate::framework::{tools, Cmd};

/// The oldest machine type would do; this one boots without a disk or a network.
const MACHINE: &[&str] = &[
    "-M",
    "q35",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max,-la57",
    "-smp",
    "2",
    "-m",
    "2G",
    "-nodefaults",
    "-display",
    "none",
    "-serial",
    "stdio",
    "-no-reboot",
];

/// Nothing is to be hidden in an emulation, and mitigations only make it slower.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off";

/// Installs what machines need on this one.
///
/// # Errors
/// When that fails, or this machine is of a kind for which there is none.
pub fn prepare() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("machines are made for x86-64 only");
    }
    tools::ensure(tools::FOR_MACHINES)
}

/// Waits until nobody else runs machines: they are heavy.
///
/// # Errors
/// When there is no place for the lock.
pub fn alone(cache: &Cache) -> Result<Flock<File>> {
    let locks = cache.root().join("locks");
    fs::create_dir_all(&locks)?;
    lock_file(&locks.join("machine"))
}

/// Boots `guest` on `kernel` and answers what it has said when it is off. One machine at a time: they are heavy.
///
/// # Errors
/// When it does not come to its end within the limit; tells what it said last.
pub fn boot(cache: &Cache, kernel: Kernel, guest: &Guest, limit: Duration) -> Result<String> {
    let files = kernel.files(cache)?;
    let scratch = tempfile::tempdir()?;
    let (tree, archive) = (scratch.path().join("tree"), scratch.path().join("archive"));
    fs::create_dir(&tree)?;
    guest.pack(&files, &tree, &archive)?;
    let _alone = alone(cache)?;
    let [image, archive] = [&files.image, &archive].map(|path| path.to_string_lossy().into_owned());
    let files = ["-kernel", &image, "-initrd", &archive, "-append", COMMAND_LINE];
    let argv = [&["nice", "-n", "10", "qemu-system-x86_64"], MACHINE, files.as_slice()].concat();
    let output = Cmd::new(argv).timeout(limit).output().with_context(|| format!("the kernel of {kernel}"))?;
    // The console ends lines as terminals do.
    let said = output.out().replace('\r', "");
    if !said.contains(OVER) {
        bail!("the machine went down ({}):\n{}\n{}", output.status, last_lines(&said), output.err());
    }
    Ok(said)
}
