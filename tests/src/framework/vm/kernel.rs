//! Kernels of Debian's, as its packages hold them.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{bail, Context, Error, Result};

use crate::framework::cache::Cache;
use crate::framework::recipe::Recipe;
use crate::framework::rootfs;
use crate::framework::Cmd;

/// The kernel, and a program that is a whole system by itself.
const PACKAGES: &[&str] = &["busybox-static", "linux-image-cloud-amd64"];

/// Where releases have busybox: the second is merged into one tree.
const BUSYBOX: [&str; 2] = ["bin/busybox", "usr/bin/busybox"];

/// Where releases have modules, likewise.
const MODULE_DIRS: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// What CRIU wants of a kernel and is not built in, each after those that it needs.
const MODULES: [&str; 8] =
    ["libcrc32c", "nfnetlink", "nf_tables", "tun", "veth", "inet_diag", "tcp_diag", "unix_diag"];

/// The release that a kernel is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12: Linux 6.1, which has soft-dirty bits and no `PAGEMAP_SCAN`.
    Bookworm,
    /// Debian 13: Linux 6.12, which has both.
    Trixie,
}

/// The files that a machine is made of.
#[derive(Debug, Clone)]
pub struct Files {
    /// What QEMU boots.
    pub image: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
    /// To be loaded in this order.
    pub modules: Vec<PathBuf>,
}

/// What a release's kernel is in its package.
#[derive(Debug, Clone)]
pub struct Tree {
    /// What QEMU boots.
    pub image: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
    /// Its name for itself.
    pub version: String,
    /// The directory of its modules.
    pub modules: PathBuf,
}

impl Tree {
    /// The files of these modules: those that are missing are built in.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn find(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let tree = self.modules.to_str().context("a path that is not UTF-8")?;
        let all = Cmd::new(["find", tree, "-name", "*.ko*"]).ok()?;
        let find =
            |name: &&str| all.lines().find(|path| path.contains(&format!("/{name}.ko"))).map(PathBuf::from);
        Ok(names.iter().filter_map(find).collect())
    }
}

impl Kernel {
    /// Both, the older first.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// The release's name.
    pub fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// Its files, taken out of Debian's packages when the cache has none.
    ///
    /// # Errors
    /// When the packages cannot be had, or hold something else than they did.
    pub fn files(self, cache: &Cache) -> Result<Files> {
        let tree = self.tree(cache)?;
        let modules = tree.find(&MODULES)?;
        Ok(Files { image: tree.image, busybox: tree.busybox, modules })
    }

    /// Its package, unpacked; fetched when the cache has none.
    ///
    /// # Errors
    /// See [`Kernel::files`].
    pub fn tree(self, cache: &Cache) -> Result<Tree> {
        // Unpacked, and nothing of it run: the rest of a system would only be in the way.
        let packages = Cow::Borrowed(PACKAGES);
        let recipe = Recipe { suite: self.suite(), variant: "extract", packages, options: &[] };
        let tree = rootfs::root(cache, &format!("vm-{self}"), &recipe)?;
        let busybox = BUSYBOX.iter().map(|path| tree.join(path)).find(|path| path.is_file());
        let busybox = busybox.context("no busybox in its package")?;
        let (image, version) = image(&tree.join("boot"))?;
        let modules =
            MODULE_DIRS.iter().map(|path| tree.join(path).join(&version)).find(|path| path.is_dir());
        Ok(Tree { image, busybox, modules: modules.context("no modules in the kernel's package")?, version })
    }
}

/// The kernel in `boot`, and its version.
fn image(boot: &Path) -> Result<(PathBuf, String)> {
    for entry in fs::read_dir(boot).with_context(|| format!("cannot read {}", boot.display()))? {
        let entry = entry?;
        if let Some(version) = entry.file_name().to_string_lossy().strip_prefix("vmlinuz-") {
            return Ok((entry.path(), version.to_owned()));
        }
    }
    bail!("no kernel in {}", boot.display())
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.suite())
    }
}

impl FromStr for Kernel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|kernel| kernel.suite() == text) {
            Some(kernel) => Ok(kernel),
            None => bail!("{text:?} is neither bookworm nor trixie"),
        }
    }
}
