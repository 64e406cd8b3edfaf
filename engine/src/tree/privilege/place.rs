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

/// Device and number of a namespace's file.
type Identity = (u64, u64);

/// The namespaces that a process is in, those above.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place([Option<Identity>; NAMESPACES.len()]);

impl Place {
    pub(super) fn of(pid: i32) -> Self {
        Self(NAMESPACES.map(|(name, _)| identity(pid, name)))
    }

    /// What is wrong with the place of process `pid`, when this is that of the container's PID 1; a process that is gone is
    /// nowhere.
    pub(super) fn left_by(&self, pid: i32) -> Option<String> {
        let here = Self::of(pid).0.into_iter().zip(self.0);
        let differs = |(found, own): (Option<Identity>, Option<Identity>)| found.is_some() && found != own;
        let (_, what) = NAMESPACES.iter().zip(here).find(|(_, both)| differs(*both))?.0;
        Some(format!("a namespace of its own for {what}"))
    }
}

fn identity(pid: i32, name: &str) -> Option<Identity> {
    std::fs::metadata(format!("/proc/{pid}/ns/{name}")).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn each_namespace_of_its_own_is_seen() {
        let me = std::process::id().cast_signed();
        assert_eq!(Place::of(me).left_by(me), None);
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
            let found = Place::of(me).left_by(child.id().cast_signed());
            drop(child.stdin.take());
            child.wait().unwrap();
            assert!(found.as_ref().is_some_and(|found| found.contains(what)), "{option}: {found:?}");
        }
    }
}
