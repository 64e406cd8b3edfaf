//! The disk of a whole Debian system: systemd as PID 1, cgroup v2, AppArmor enforcing, containerd and runc, as its packages
//! have them. FastMig is not on it: whoever boots it installs that.

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernel::Tree;
use super::Kernel;
use crate::framework::bundle::copy_tree;
use crate::framework::cache::Cache;
use crate::framework::mounts::remove_tree;
use crate::framework::recipe::Recipe;
use crate::framework::{rootfs, Cmd};

/// Changes when the way of making disks does.
const REVISION: u32 = 1;

const LIMIT: Duration = Duration::from_secs(300);

const PACKAGES: &[&str] = &[
    "apparmor",
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "dbus",
    "iproute2",
    "iptables",
    "kmod",
    "nftables",
    "openssh-server",
    "procps",
    "python3-minimal",
    "redis-tools",
    "runc",
    "sudo",
    "systemd-sysv",
    "udev",
];

/// Debian ships profiles for many programs that are not here; compiling them takes an emulated machine minutes.
const OPTIONS: &[&str] = &[
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--customize-hook=find \"$1/etc/apparmor.d\" -maxdepth 1 -type f -delete",
    "--customize-hook=chroot \"$1\" passwd --quiet --delete root",
];

/// Units that have nothing to do here, and take time.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "ldconfig.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-timesyncd.service",
    "systemd-update-done.service",
];

const FILES: &[(&str, &str)] = &[
    ("etc/fstab", "/dev/vda / ext4 rw,noatime 0 0\n"),
    ("etc/hosts", "127.0.0.1 localhost\n10.9.0.1 node1\n10.9.0.2 node2\n"),
    ("etc/modules-load.d/containers.conf", "overlay\ntun\nveth\n"),
    // The way out is given by the emulator; the nodes' own network knows them by their cards.
    (
        "etc/systemd/network/10-node1.network",
        "[Match]\nMACAddress=52:54:00:09:00:01\n[Network]\nAddress=10.9.0.1/24\n",
    ),
    (
        "etc/systemd/network/10-node2.network",
        "[Match]\nMACAddress=52:54:00:09:00:02\n[Network]\nAddress=10.9.0.2/24\n",
    ),
    (
        "etc/systemd/network/80-outside.network",
        "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
    ),
];

/// Makes an ext4 of the tree `$1` with `$2/upper` over it, for the kernels of the versions from `$4` on, in the file `$3`.
const MAKE: &str = r#"
tree=$1 scratch=$2 disk=$3
shift 3
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
for version; do chroot "$scratch/root" depmod -a "$version"; done
truncate -s 6G "$disk"
mke2fs -q -t ext4 -E lazy_itable_init=1 -d "$scratch/root" "$disk"
"#;

/// The disk, sparse, to be written to in a copy only; made when the cache has none.
///
/// # Errors
/// When packages cannot be had, or the disk not be made.
pub fn disk(cache: &Cache) -> Result<PathBuf> {
    let recipe =
        Recipe { suite: "trixie", variant: "minbase", packages: Cow::Borrowed(PACKAGES), options: OPTIONS };
    let tree = rootfs::root(cache, "vm-system", &recipe)?;
    let kernels = Kernel::ALL.map(|kernel| kernel.tree(cache)).into_iter().collect::<Result<Vec<_>>>()?;
    let key = format!("{REVISION}\n{}\n{kernels:?}\n{FILES:?}\n{MASKED:?}\n{MAKE}", tree.display());
    cache.get("disks", "system", &key, |target| make(&tree, &kernels, target))
}

fn make(tree: &Path, kernels: &[Tree], target: &Path) -> Result<()> {
    let scratch = target.with_extension("scratch");
    remove_tree(&scratch)?;
    for name in ["upper", "work", "root"] {
        fs::create_dir_all(scratch.join(name))?;
    }
    configure(&scratch.join("upper"))?;
    let modules = scratch.join("upper/usr/lib/modules");
    fs::create_dir_all(&modules)?;
    for kernel in kernels {
        copy_tree(&kernel.modules, &modules.join(&kernel.version))?;
    }
    let paths = [tree, &scratch, target].map(|path| path.to_str().context("a path that is not UTF-8"));
    let paths = paths.into_iter().collect::<Result<Vec<_>>>()?;
    let shell = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", MAKE, "sh"];
    let versions = kernels.iter().map(|kernel| kernel.version.as_str());
    Cmd::new(shell.into_iter().chain(paths).chain(versions)).timeout(LIMIT).ok()?;
    remove_tree(&scratch)
}

fn configure(upper: &Path) -> Result<()> {
    for (name, text) in FILES {
        let path = upper.join(name);
        let directory = path.parent().context("a file in no directory")?;
        fs::create_dir_all(directory)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    let units = upper.join("etc/systemd/system");
    let wanted = units.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    symlink("/usr/lib/systemd/system/systemd-networkd.service", wanted.join("systemd-networkd.service"))?;
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    // One for each machine, at its first start.
    Ok(fs::write(upper.join("etc/machine-id"), "")?)
}
