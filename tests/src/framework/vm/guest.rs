//! All that a machine has: an archive that the kernel unpacks into memory, with an init that is a script.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::Files;
use crate::framework::bundle::copy_tree;
use crate::framework::Cmd;

/// What the init says last. Without it the machine has gone down by itself.
pub const OVER: &str = "@ over";

/// Commands of busybox that scripts may use.
const COMMANDS: &[&str] = &[
    "cat",
    "cp",
    "cut",
    "echo",
    "grep",
    "mkdir",
    "mount",
    "poweroff",
    "setsid",
    "sh",
    "switch_root",
    "timeout",
];

/// Moves all into a file system that was mounted, as a root is elsewhere: CRIU asks for one.
const MOVE: &str = "#!/bin/sh
export PATH=/bin
mkdir /root
mount -t tmpfs -o mode=755 root /root
for each in /*; do [ $each = /root ] || cp -a $each /root; done
exec switch_root /root /begin
";

/// What is there before the script begins.
const PREPARATION: &str = "#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
for each in /modules/*; do insmod $each; done
ip link set lo up
";

/// A system to be.
#[derive(Debug, Clone, Default)]
pub struct Guest {
    /// Static programs, by their names in `/programs`.
    pub programs: Vec<(String, PathBuf)>,
    /// Directories that are copied, by their names in `/`.
    pub trees: Vec<(String, PathBuf)>,
    /// Empty ones that programs take for granted.
    pub directories: Vec<PathBuf>,
    /// What is run, by a shell with `/proc`, `/sys`, `/dev`, `/tmp` and cgroups (version 2) around it.
    pub script: String,
}

impl Guest {
    /// Packs it into the file `archive`; `scratch` is an empty directory.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn pack(&self, files: &Files, scratch: &Path, archive: &Path) -> Result<()> {
        let made = |name: &str| -> Result<PathBuf> {
            let directory = scratch.join(name);
            fs::create_dir_all(&directory)?;
            Ok(directory)
        };
        for name in ["proc", "sys", "dev", "tmp"] {
            made(name)?;
        }
        let programs = made("programs")?;
        for (name, source) in &self.programs {
            copy(source, &programs.join(name))?;
        }
        let bin = made("bin")?;
        copy(&files.busybox, &bin.join("busybox"))?;
        for command in COMMANDS {
            symlink("busybox", bin.join(command))?;
        }
        let modules = made("modules")?;
        for (place, source) in files.modules.iter().enumerate() {
            write_module(source, &modules, place)?;
        }
        for (name, source) in &self.trees {
            copy_tree(source, &scratch.join(name))?;
        }
        for directory in &self.directories {
            fs::create_dir_all(scratch.join(directory.strip_prefix("/").unwrap_or(directory)))?;
        }
        script(&scratch.join("init"), MOVE)?;
        script(
            &scratch.join("begin"),
            &format!("{PREPARATION}{}\necho '{OVER}'\npoweroff -f\n", self.script),
        )?;
        write_archive(&files.busybox, scratch, archive)
    }
}

/// Packs the tree `from` as kernels unpack it.
pub(super) fn write_archive(busybox: &Path, from: &Path, archive: &Path) -> Result<()> {
    let [busybox, from, archive] = [busybox, from, archive].map(|path| path.to_string_lossy());
    let line = "find . | \"$0\" cpio -o -H newc > \"$1\"";
    Cmd::new(["sh", "-c", line, busybox.as_ref(), archive.as_ref()]).dir(from).ok().map(drop)
}

/// Writes one to be loaded as number `place`: numbers of one width are in order for a shell.
pub(super) fn write_module(source: &Path, modules: &Path, place: usize) -> Result<()> {
    Ok(fs::write(modules.join(format!("{place:02}.ko")), module(source)?)?)
}

/// As the kernel takes it.
fn module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|end| end != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let path = path.to_str().context("a path that is not UTF-8")?;
    Ok(Cmd::new(["xz", "--decompress", "--stdout", path]).output()?.stdout)
}

pub(super) fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}
