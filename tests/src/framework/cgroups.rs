//! The cgroups of a host: one of its own in each hierarchy of the machine, of version 1 or 2.
//!
//! A cgroup namespace makes them look like the root inside the host. On version 2 the host's processes live in a leaf below
//! its own cgroup, for a cgroup with controllers enabled must hold none.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};

use super::mounts::{mounts_of, Mount};
use super::process::{wait_until, ProcessId};

/// Where cgroup hierarchies are mounted, here and in a host.
pub const MOUNT_ROOT: &str = "/sys/fs/cgroup";

/// The part that a host has in one hierarchy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hierarchy {
    /// `cgroup` or `cgroup2`.
    pub fs_type: String,
    /// Options that mount the hierarchy once more.
    pub options: String,
    /// Its mount point below `/sys/fs/cgroup`; empty for the only hierarchy of a machine with version 2.
    pub place: String,
    /// The host's own cgroup.
    pub own: PathBuf,
    /// The cgroup that its processes enter.
    pub enter: PathBuf,
}

impl Hierarchy {
    /// Whether this is the one hierarchy of a machine that has version 2 alone.
    pub fn is_unified(&self) -> bool {
        self.place.is_empty()
    }
}

/// Plans a cgroup `name` in every hierarchy of this machine.
pub fn plan(name: &str) -> Result<Vec<Hierarchy>> {
    let own_paths = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let mounts = mounts_of("self")?;
    let hierarchies: Vec<_> = mounts.iter().filter_map(|mount| plan_in(mount, &own_paths, name)).collect();
    if hierarchies.is_empty() {
        bail!("no cgroup hierarchy is mounted at {MOUNT_ROOT}");
    }
    Ok(hierarchies)
}

fn plan_in(mount: &Mount, own_paths: &str, name: &str) -> Option<Hierarchy> {
    let place = mount.point.strip_prefix(MOUNT_ROOT).ok()?.to_str()?.to_owned();
    let (fs_type, options) = (mount.fs_type.clone(), controllers(&mount.super_options));
    match fs_type.as_str() {
        // At the top, where controllers can be enabled whatever processes there are.
        "cgroup2" if place.is_empty() => {
            let own = mount.point.join(name);
            Some(Hierarchy { enter: own.join("host"), own, fs_type, options: String::new(), place })
        }
        "cgroup" | "cgroup2" => {
            let wanted = if fs_type == "cgroup2" {
                String::new()
            } else {
                options.trim_start_matches("none,").to_owned()
            };
            let below = own_path(own_paths, &wanted)?.strip_prefix(&mount.root).ok()?.to_owned();
            let own = mount.point.join(below).join(name);
            let options = if wanted.is_empty() { String::new() } else { options };
            Some(Hierarchy { enter: own.clone(), own, fs_type, options, place })
        }
        _ => None,
    }
}

/// Of a hierarchy's options those that say which one it is.
fn controllers(super_options: &str) -> String {
    let is_name = |option: &&str| !["rw", "ro", "xattr", "clone_children", "noprefix"].contains(option);
    let names: Vec<&str> = super_options
        .split(',')
        .filter(is_name)
        .filter(|option| !option.starts_with("release_agent="))
        .collect();
    let names = names.join(",");
    if names.starts_with("name=") {
        format!("none,{names}")
    } else {
        names
    }
}

/// The caller's cgroup in the hierarchy of these controllers, out of `/proc/self/cgroup`.
fn own_path<'a>(own_paths: &'a str, controllers: &str) -> Option<&'a Path> {
    own_paths.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        (fields.next() == Some(controllers)).then(|| fields.next().map(Path::new)).flatten()
    })
}

/// Makes the cgroups.
pub fn create(hierarchies: &[Hierarchy]) -> Result<()> {
    for hierarchy in hierarchies {
        fs::create_dir_all(&hierarchy.enter)
            .with_context(|| format!("cannot make {}", hierarchy.enter.display()))?;
        if hierarchy.options.split(',').any(|controller| controller == "cpuset") {
            inherit_cpuset(&hierarchy.own)?;
        }
    }
    Ok(())
}

/// A fresh cpuset of version 1 has no processor and takes no process.
fn inherit_cpuset(own: &Path) -> Result<()> {
    let parent = own.parent().context("a cgroup without a parent")?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        fs::write(own.join(file), fs::read(parent.join(file))?)
            .with_context(|| format!("cannot set {file}"))?;
    }
    fs::write(own.join("cgroup.clone_children"), "1").context("cannot set cgroup.clone_children")
}

/// Puts the calling process into the host's own cgroups, which its next cgroup namespace takes for the root.
pub fn enter_own(hierarchies: &[Hierarchy]) -> Result<()> {
    hierarchies.iter().try_for_each(|hierarchy| enter(&hierarchy.own))
}

/// Puts the calling process where the host's processes live, and hands controllers to the cgroups below.
pub fn settle(hierarchies: &[Hierarchy]) -> Result<()> {
    for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.is_unified()) {
        enter(&hierarchy.enter)?;
        enable_controllers(hierarchy.own.parent().context("a cgroup without a parent")?);
        enable_controllers(&hierarchy.own);
    }
    Ok(())
}

fn enter(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("cannot enter {}", cgroup.display()))
}

/// One by one, for a machine may refuse some: a host lacks those then, as that machine does.
fn enable_controllers(cgroup: &Path) {
    let controllers = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The `cgroup.procs` files that a process of the host must be written to.
pub fn entrances(hierarchies: &[Hierarchy]) -> Vec<PathBuf> {
    hierarchies.iter().map(|hierarchy| hierarchy.enter.join("cgroup.procs")).collect()
}

/// All cgroups at and below `cgroup`, the deepest first.
pub fn tree(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(cgroup) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.extend(tree(&entry.path()));
        }
        found.push(cgroup.to_owned());
    }
    found
}

/// Lets frozen processes run on: a frozen one cannot be killed on version 1.
pub fn thaw(hierarchies: &[Hierarchy]) {
    for cgroup in hierarchies.iter().flat_map(|hierarchy| tree(&hierarchy.own)) {
        // Most cgroups have neither file.
        for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let path = cgroup.join(file);
            if path.exists() {
                let _ = fs::write(path, value);
            }
        }
    }
}

/// Kills what still runs in the cgroups.
pub fn kill_members(hierarchies: &[Hierarchy]) {
    for cgroup in hierarchies.iter().flat_map(|hierarchy| tree(&hierarchy.own)) {
        let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for member in
            members.lines().filter_map(|line| line.parse().ok()).filter_map(|pid| ProcessId::of(pid).ok())
        {
            member.kill();
        }
    }
}

/// Removes the cgroups; the last processes may take a moment to leave them.
pub fn remove(hierarchies: &[Hierarchy], limit: Duration) -> Result<()> {
    for hierarchy in hierarchies {
        let gone = || {
            tree(&hierarchy.own).iter().for_each(|cgroup| drop(fs::remove_dir(cgroup)));
            !hierarchy.own.exists()
        };
        wait_until(limit, gone).with_context(|| format!("cannot remove {}", hierarchy.own.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, fs_type: &str, super_options: &str) -> Mount {
        Mount {
            root: "/".into(),
            point: point.into(),
            fs_type: fs_type.into(),
            super_options: super_options.into(),
        }
    }

    const OWN: &str = "9:name=systemd:/\n4:memory:/session/x\n1:cpu,cpuacct:/\n0::/\n";

    #[test]
    fn version_1_hosts_live_below_the_callers_cgroup() {
        let plan = plan_in(&mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory"), OWN, "h").unwrap();
        assert_eq!((plan.options.as_str(), plan.place.as_str()), ("memory", "memory"));
        assert_eq!(plan.enter, Path::new("/sys/fs/cgroup/memory/session/x/h"));
        let named =
            plan_in(&mount("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"), OWN, "h").unwrap();
        assert_eq!(named.options, "none,name=systemd");
        let hybrid = plan_in(&mount("/sys/fs/cgroup/unified", "cgroup2", "rw,nsdelegate"), OWN, "h").unwrap();
        assert!(!hybrid.is_unified() && hybrid.options.is_empty());
    }

    #[test]
    fn version_2_hosts_live_in_a_leaf_at_the_top() {
        let plan =
            plan_in(&mount("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate"), "0::/user.slice\n", "h").unwrap();
        assert!(plan.is_unified());
        assert_eq!(plan.enter, Path::new("/sys/fs/cgroup/h/host"));
    }

    #[test]
    fn other_mounts_are_no_hierarchies() {
        assert!(plan_in(&mount("/sys/fs/cgroup", "tmpfs", "rw"), OWN, "h").is_none());
        assert!(plan_in(&mount("/elsewhere", "cgroup", "rw,memory"), OWN, "h").is_none());
    }
}
