//! Where a container's cgroups are, in either version.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// The cgroups of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// One directory per controller.
    V1(HashMap<String, PathBuf>),
    /// One directory.
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroups that process `pid` is in.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let memberships = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        parse(&memberships, &mounts).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A controller's directory.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        match self {
            Self::V1(controllers) => controllers.get(name).map(PathBuf::as_path),
            Self::V2(path) => Some(path),
        }
    }
}

/// `memberships` is a /proc/PID/cgroup, `mounts` a /proc/PID/mountinfo.
fn parse(memberships: &str, mounts: &str) -> Option<Cgroup> {
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    let mut controllers = HashMap::new();
    let mut unified = None;
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        if names.is_empty() {
            unified = mounts.iter().find(|mount| mount.v2).and_then(|mount| mount.directory(path));
            continue;
        }
        for name in names.split(',') {
            let mount = mounts.iter().find(|mount| !mount.v2 && mount.has(name));
            if let Some(directory) = mount.and_then(|mount| mount.directory(path)) {
                controllers.insert(name.to_owned(), directory);
            }
        }
    }
    // In a hybrid hierarchy the controllers are in version 1.
    if controllers.contains_key("memory") || controllers.contains_key("pids") {
        return Some(Cgroup::V1(controllers));
    }
    unified.map(Cgroup::V2)
}

/// A mounted cgroup hierarchy.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    v2: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut system = system.split(' ');
        let v2 = match system.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Self { root, point, v2, options: system.nth(1)? })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }

    /// The directory of a cgroup, unless it is outside of what is mounted.
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(self.root).ok()?;
        if below.components().any(|part| part == std::path::Component::ParentDir) {
            return None;
        }
        Some(Path::new(self.point).join(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 /pods /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn version_1_has_a_directory_for_each_controller() {
        let memberships = "4:cpu,cpuacct:/pods/a\n3:memory:/default/c\n1:name=systemd:/x\n0::/\n";
        let cgroup = parse(memberships, V1_MOUNTS).unwrap();
        assert_eq!(cgroup.controller("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/a")));
        assert_eq!(cgroup.controller("memory"), Some(Path::new("/sys/fs/cgroup/memory/default/c")));
        assert_eq!(cgroup.controller("pids"), None);
    }

    #[test]
    fn version_2_has_one() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let cgroup = parse("0::/system.slice/c\n", mounts).unwrap();
        assert_eq!(cgroup, Cgroup::V2("/sys/fs/cgroup/system.slice/c".into()));
        assert_eq!(cgroup.controller("memory"), Some(Path::new("/sys/fs/cgroup/system.slice/c")));
    }

    #[test]
    fn a_cgroup_outside_of_what_is_mounted_is_none() {
        assert_eq!(parse("3:memory:/../other\n", V1_MOUNTS), None);
        assert_eq!(parse("", V1_MOUNTS), None);
    }
}
