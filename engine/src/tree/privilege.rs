//! No image decides policy: what was restored may not hold more than the live container would have given it.
//!
//! | file | what is compared with the container's PID 1 |
//! |---|---|
//! | this one | capabilities, whether there are seccomp filters, `no_new_privs` |
//! | `filters` | seccomp filters, byte for byte |
//! | `place` | namespaces |
//! | `label` | AppArmor labels |
//! | `schedule` | real-time scheduling and nice values |
//! | `limits` | resource limits, which are brought down |

mod filters;
mod label;
mod limits;
mod place;
mod schedule;

use std::collections::BTreeSet;
use std::path::PathBuf;

use caps::Capability;
use procfs::process::{Limits, Process, Stat, Status, Task};

use crate::tree::{apparmor, application};
use crate::{Container, Error};

pub(crate) use filters::Filters;

/// How many look at processes at the same time.
const WORKERS: usize = 4;

/// What PID 1 of a container has.
#[derive(Debug)]
pub(crate) struct Allowed {
    status: Status,
    place: place::Place,
    stat: Stat,
    limits: Limits,
    oom_score_adj: Option<i32>,
    label: Option<String>,
}

impl Allowed {
    pub(crate) fn of(container: &Container) -> Result<Self, Error> {
        let init = container.pid();
        Self::of_process(init).map_err(|e| {
            Error::io(
                "read the privileges of",
                &PathBuf::from(format!("/proc/{init}")),
                std::io::Error::other(e),
            )
        })
    }

    fn of_process(init: i32) -> procfs::ProcResult<Self> {
        let process = Process::new(init)?;
        Ok(Self {
            status: process.status()?,
            place: place::Place::of(init),
            stat: process.stat()?,
            limits: process.limits()?,
            oom_score_adj: application::oom_score_adj(init),
            label: apparmor::of_application(init),
        })
    }

    fn has(&self, capability: Capability) -> bool {
        self.status.capbnd.unwrap_or(0) & capability.bitmask() != 0
    }

    /// What process `pid` has that PID 1 of its container could not have come by.
    fn lacked(&self, pid: i32, threads: &[Thread]) -> Option<String> {
        let excess = threads.iter().find_map(|thread| excess(&thread.status, &self.status));
        let astray = || (!self.has(Capability::CAP_SYS_ADMIN)).then(|| self.place.left_by(pid)).flatten();
        let preferred = || {
            let stats = || threads.iter().filter_map(|thread| thread.task.stat().ok());
            let nobody = self.has(Capability::CAP_SYS_NICE);
            (!nobody)
                .then(|| stats().find_map(|stat| schedule::preferred(&stat, &self.stat, &self.limits)))?
        };
        let other = || label::other(threads.iter().map(|thread| thread.task.tid), self.label.as_deref()?);
        excess.or_else(astray).or_else(preferred).or_else(other)
    }
}

/// A thread that is no zombie.
#[derive(Debug)]
struct Thread {
    task: Task,
    status: Status,
}

/// Compares every process of the tree below host process `root`, none of which has run yet, with the container's own PID 1.
///
/// CRIU lets the tasks go whatever is answered at this stage, so on a violation the caller must kill them first.
pub(crate) fn verify(container: &Container, allowed: &Allowed, root: Option<i32>) -> Result<(), Error> {
    let processes: Vec<i32> = root.into_iter().flat_map(application::tree_of).collect();
    // The application stands still meanwhile, so many are looked at together.
    let share = processes.len().div_ceil(WORKERS).max(1);
    std::thread::scope(|scope| {
        let verify_all = |pids: &[i32]| pids.iter().try_for_each(|pid| verify_one(container, *pid, allowed));
        let mut shares = processes.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|pids| scope.spawn(move || verify_all(pids))).collect();
        let panicked = || {
            let error = std::io::Error::other("a thread panicked");
            Err(Error::io("read the privileges of", std::path::Path::new("/proc"), error))
        };
        let results = others.into_iter().map(|other| other.join().unwrap_or_else(|_| panicked()));
        results.fold(verify_all(own), Result::and)
    })
}

fn verify_one(container: &Container, pid: i32, allowed: &Allowed) -> Result<(), Error> {
    let threads = threads_of(pid);
    if let Some(what) = allowed.lacked(pid, &threads) {
        let command = application::command_of(pid);
        let id = container.key().id().into();
        return Err(Error::TooPrivileged { id, command, what });
    }
    if !allowed.has(Capability::CAP_SYS_RESOURCE) && !threads.is_empty() {
        limits::bring_down(pid, &allowed.limits, allowed.oom_score_adj)
            .map_err(|e| Error::io("lower the limits of", &PathBuf::from(format!("/proc/{pid}")), e))?;
    }
    Ok(())
}

/// Whether a process is in a namespace that is not its container's.
pub(crate) fn has_left(pid: i32, init: i32) -> bool {
    place::Place::of(init).left_by(pid).is_some()
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
    threads_of(pid).into_iter().map(|thread| thread.status).collect()
}

fn threads_of(pid: i32) -> Vec<Thread> {
    let tasks = Process::new(pid).and_then(|process| process.tasks()).into_iter().flatten().flatten();
    let threads = tasks.filter_map(|task| task.status().ok().map(|status| Thread { task, status }));
    threads.filter(|thread| !thread.status.state.starts_with(['Z', 'X'])).collect()
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
    if allowed.nonewprivs == Some(1) {
        if found.nonewprivs != Some(1) {
            return Some("it may gain new privileges".into());
        }
        if let Some(gained) = gained(found, allowed) {
            return Some(gained);
        }
    }
    if allowed.seccomp.unwrap_or(0) > found.seccomp.unwrap_or(0) {
        return Some("it has no seccomp filter".into());
    }
    None
}

/// Where nobody gains privileges, whoever is not root or has no such capability at the start never will.
fn gained(found: &Status, first: &Status) -> Option<String> {
    let at_hand = found.capprm | found.capeff | found.capamb.unwrap_or(0);
    let beyond = at_hand & !first.capprm;
    if beyond != 0 {
        return Some(format!("capabilities {beyond:#x}, which nobody can gain in it"));
    }
    let users = [found.ruid, found.euid, found.suid, found.fuid];
    let own = [first.ruid, first.euid, first.suid, first.fuid];
    let may_change = first.capprm & Capability::CAP_SETUID.bitmask() != 0;
    let other = users.iter().find(|user| !own.contains(user)).filter(|_| !may_change)?;
    Some(format!("user {other}, whom nobody can become in it"))
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

    #[test]
    fn where_nobody_gains_privileges_nobody_has_gained_them() {
        let (mut first, mut found) = (own(), own());
        for status in [&mut first, &mut found] {
            (status.capprm, status.capeff, status.capamb) = (0, 0, Some(0));
            (status.ruid, status.euid, status.suid, status.fuid) = (1000, 1000, 1000, 1000);
            status.nonewprivs = Some(1);
        }
        assert_eq!(excess(&found, &first), None);
        found.capprm = first.capbnd.unwrap_or(0);
        assert!(excess(&found, &first).unwrap().contains("nobody can gain"));
        found.capprm = 0;
        found.suid = 0;
        assert!(excess(&found, &first).unwrap().contains("user 0"));
        // Who starts as root may become anybody.
        first.capprm = Capability::CAP_SETUID.bitmask();
        assert_eq!(excess(&found, &first), None);
        // And where privileges may be gained, they may have been.
        first.capprm = 0;
        (first.nonewprivs, found.nonewprivs) = (Some(0), Some(0));
        assert_eq!(excess(&found, &first), None);
    }
}
