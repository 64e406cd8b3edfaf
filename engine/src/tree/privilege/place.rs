//! Where a restored process is: in the container's namespaces, whatever its image says. One of its own could show it
//! `/proc` or `/sys` without what the container's creator has put over them.

use std::os::unix::fs::MetadataExt;

/// The namespaces that are the container's. That of IPC is the application's own, and so is that of time, in which CRIU lets
/// its clocks go on.
const NAMESPACES: [(&str, &str); 6] = [
    ("mnt", "mounts"),
    ("net", "network"),
    ("uts", "host name"),
    ("pid", "processes"),
    ("user", "users"),
    ("cgroup", "cgroups"),
];

/// What is wrong with the place of process `pid`, compared with that of the container's PID 1; a process that is gone is
/// nowhere.
pub(super) fn astray(pid: i32, init: i32) -> Option<String> {
    let identity = |pid: i32, name: &str| {
        std::fs::metadata(format!("/proc/{pid}/ns/{name}")).ok().map(|file| (file.dev(), file.ino()))
    };
    let differs = |name: &str| identity(pid, name).is_some_and(|found| Some(found) != identity(init, name));
    let (_, what) = NAMESPACES.iter().find(|(name, _)| differs(name))?;
    Some(format!("a namespace of its own for {what}"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn each_namespace_of_its_own_is_seen() {
        let me = std::process::id().cast_signed();
        assert_eq!(astray(me, me), None);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        for (option, what) in [("--mount", "mounts"), ("--net", "network"), ("--uts", "host name")] {
            let mut child = Command::new("unshare")
                .args([option, "sh", "-c", "echo ready; read line"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut ready = [0; 6];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
            let found = astray(child.id().cast_signed(), me);
            drop(child.stdin.take());
            child.wait().unwrap();
            assert!(found.as_ref().is_some_and(|found| found.contains(what)), "{option}: {found:?}");
        }
    }
}
