//! All that a machine has: an archive that the kernel unpacks into memory, with an init that is a script.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::framework::Cmd;

/// What the init says last. Without it the machine has gone down by itself.
pub const OVER: &str = "@ over";

/// Commands of busybox that scripts may use.
const COMMANDS: &[&str] = &["cat", "cut", "echo", "grep", "mkdir", "mount", "poweroff", "sh", "timeout"];

/// What is there before the script begins.
const PREPARATION: &str = "#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
";

/// A system to be.
#[derive(Debug, Clone, Default)]
pub struct Guest {
    /// Static programs, by their names in `/programs`.
    pub programs: Vec<(String, PathBuf)>,
    /// Directories that these take for granted.
    pub directories: Vec<PathBuf>,
    /// What is run, by a shell with `/proc`, `/sys`, `/dev`, `/tmp` and cgroups (version 2) around it.
    pub script: String,
}

impl Guest {
    /// Packs it into the file `archive`; `scratch` is an empty directory.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn pack(&self, busybox: &Path, scratch: &Path, archive: &Path) -> Result<()> {
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
        copy(busybox, &bin.join("busybox"))?;
        for command in COMMANDS {
            symlink("busybox", bin.join(command))?;
        }
        for directory in &self.directories {
            fs::create_dir_all(scratch.join(directory.strip_prefix("/").unwrap_or(directory)))?;
        }
        let init = scratch.join("init");
        fs::write(&init, format!("{PREPARATION}{}\necho '{OVER}'\npoweroff -f\n", self.script))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        let [busybox, scratch, archive] = [busybox, scratch, archive].map(|path| path.to_string_lossy());
        let line = "find . | \"$0\" cpio -o -H newc > \"$1\"";
        Cmd::new(["sh", "-c", line, busybox.as_ref(), archive.as_ref()]).dir(scratch).ok().map(drop)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}
