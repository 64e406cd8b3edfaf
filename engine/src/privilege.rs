//! No image decides policy: what was restored may not hold more than the live container would have given it.

use std::collections::BTreeSet;

use procfs::process::{Process, Status};

use crate::{application, Container, Error};

/// Compares every process of the tree below `root`, none of which has run yet, with the container's own PID 1.
///
/// CRIU lets the tasks go whatever is answered at this stage, so on a violation the caller must kill them first.
pub(crate) fn verify(container: &Container, root: i32) -> Result<(), Error> {
    let failed = |e: procfs::ProcError| {
        Error::io("read the privileges of", std::path::Path::new("/proc"), std::io::Error::other(e))
    };
    let allowed = Process::new(container.pid()).and_then(|process| process.status()).map_err(failed)?;
    let cgroup = container.application_cgroup()?;
    let root = application::host_pid_of(root, cgroup.pids());
    for pid in root.into_iter().flat_map(application::tree_of) {
        let mut threads = living_threads(pid).into_iter();
        if let Some(what) = threads.find_map(|found| excess(&found, &allowed)) {
            let command = application::command_of(pid);
            let id = container.key().id().into();
            return Err(Error::TooPrivileged { id, command, what });
        }
    }
    Ok(())
}

/// The capabilities that any thread of these processes has at hand.
pub(crate) fn held_by(processes: &BTreeSet<i32>) -> u64 {
    let threads = processes.iter().flat_map(|pid| living_threads(*pid));
    let at_hand = threads.map(|thread| thread.capprm | thread.capinh | thread.capamb.unwrap_or(0));
    at_hand.fold(0, |all, set| all | set)
}

/// The threads of a process, each of which may hold privileges of its own. A restored zombie still has CRIU's, and no use
/// for them; what is gone harms nobody.
pub(crate) fn living_threads(pid: i32) -> Vec<Status> {
    let threads = Process::new(pid).and_then(|process| process.tasks()).into_iter().flatten().flatten();
    let found = threads.filter_map(|thread| thread.status().ok());
    found.filter(|status| !status.state.starts_with(['Z', 'X'])).collect()
}

/// What `found` holds beyond `allowed`.
fn excess(found: &Status, allowed: &Status) -> Option<String> {
    let limit = allowed.capbnd.unwrap_or(0);
    let sets = [
        ("permitted", Some(found.capprm)),
        ("effective", Some(found.capeff)),
        ("inheritable", Some(found.capinh)),
        ("bounding", found.capbnd),
        ("ambient", found.capamb),
    ];
    for (name, set) in sets {
        let beyond = set.unwrap_or(0) & !limit;
        if beyond != 0 {
            return Some(format!("{name} capabilities {beyond:#x}"));
        }
    }
    if allowed.nonewprivs == Some(1) && found.nonewprivs != Some(1) {
        return Some("it may gain new privileges".into());
    }
    if allowed.seccomp.unwrap_or(0) > found.seccomp.unwrap_or(0) {
        return Some("it has no seccomp filter".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Status {
        Process::myself().and_then(|process| process.status()).unwrap()
    }

    #[test]
    fn one_never_exceeds_oneself() {
        assert_eq!(excess(&own(), &own()), None);
    }

    #[test]
    fn every_thread_counts_and_a_zombie_does_not() {
        let ids = |pid| living_threads(pid).iter().map(|thread| thread.pid).collect::<Vec<_>>();
        let me = i32::try_from(std::process::id()).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            wait.recv().unwrap_err();
        });
        let thread = told.recv().unwrap();
        assert!(ids(me).contains(&thread), "{:?}", ids(me));
        drop(go);
        other.join().unwrap();

        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while !Process::new(pid).unwrap().status().unwrap().state.starts_with('Z') {
            std::thread::yield_now();
        }
        assert!(ids(pid).is_empty());
        child.wait().unwrap();
    }

    #[test]
    fn each_kind_of_excess_is_named() {
        let mut allowed = own();
        allowed.capbnd = Some(0b1);
        let mut found = own();
        (found.capprm, found.capeff, found.capinh) = (0b1, 0b1, 0);
        (found.capbnd, found.capamb) = (Some(0b1), Some(0));
        assert_eq!(excess(&found, &allowed), None);
        found.capamb = Some(0b10);
        assert!(excess(&found, &allowed).unwrap().contains("ambient"));
        found.capamb = Some(0);
        allowed.seccomp = Some(2);
        found.seccomp = Some(0);
        assert!(excess(&found, &allowed).unwrap().contains("seccomp"));
        found.seccomp = Some(2);
        allowed.nonewprivs = Some(1);
        found.nonewprivs = Some(0);
        assert!(excess(&found, &allowed).unwrap().contains("privileges"));
    }
}
