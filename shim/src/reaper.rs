//! The orphans of the containers, which the shim inherits as their subreaper.
//!
//! Three kinds of children end up with the shim: those it forks (runc, CRIU, a logger), on which somebody
//! waits already; the containers' own processes, which [`crate::child::Child`] claims here by pid; and
//! orphans of either, on which nobody waits but this reaper. A `waitpid(-1)` would steal the first two kinds'
//! statuses, so the reaper looks only at the children of the main thread: the kernel gives orphans to it, and
//! it forks nothing itself. Of those it leaves the claimed ones alone, and all while something is being
//! started, for a process can end before it is claimed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::Notify;

/// Who is waited for by others, and whether now is a time to reap.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    children: Mutex<Children>,
    look: Notify,
}

#[derive(Debug, Default)]
struct Children {
    claimed: HashSet<i32>,
    starting: usize,
}

/// While this lives, no orphan is reaped.
#[derive(Debug)]
pub(crate) struct Starting(Arc<Reaper>);

/// While this lives, somebody else waits for the process.
#[derive(Debug)]
pub(crate) struct Claim {
    reaper: Arc<Reaper>,
    pid: i32,
}

impl Reaper {
    /// To be held from before a container process is started until it is claimed.
    pub(crate) fn starting(self: &Arc<Self>) -> Starting {
        self.lock().starting += 1;
        Starting(Arc::clone(self))
    }

    pub(crate) fn claim(self: &Arc<Self>, pid: i32) -> Claim {
        self.lock().claimed.insert(pid);
        Claim { reaper: Arc::clone(self), pid }
    }

    /// Reaps orphans for as long as the shim lives.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut ended = match signal(SignalKind::child()) {
            Ok(stream) => stream,
            Err(e) => return log::error!("orphans will stay zombies: no SIGCHLD: {e}"),
        };
        loop {
            tokio::select! {
                _ = ended.recv() => {}
                () = self.look.notified() => {}
            }
            self.sweep();
        }
    }

    fn sweep(&self) {
        let children = self.lock();
        if children.starting > 0 {
            return;
        }
        for pid in children_of_main_thread().filter(|pid| !children.claimed.contains(pid)) {
            match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => {}
                Ok(status) => log::debug!("reaped orphan {pid}: {status:?}"),
                Err(e) => log::warn!("could not reap orphan {pid}: {e}"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.lock().starting -= 1;
        self.0.look.notify_one();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.reaper.lock().claimed.remove(&self.pid);
        self.reaper.look.notify_one();
    }
}

fn children_of_main_thread() -> impl Iterator<Item = i32> {
    let pid = std::process::id();
    // A kernel without this file leaves zombies until the shim ends: no more, and no less.
    let list = std::fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::kill;
    use std::time::{Duration, Instant};

    /// The pid of a process whose parent has left it to us, and which has ended.
    fn dead_orphan() -> i32 {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", "sleep 0.05 >/dev/null & echo $!"])
            .output()
            .unwrap();
        let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
            assert!(Instant::now() < deadline, "{pid} lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
        pid
    }

    fn is_there(pid: i32) -> bool {
        kill(Pid::from_raw(pid), None).is_ok()
    }

    /// One test, since all orphans of the process are one reaper's.
    #[test]
    fn an_orphan_is_reaped_unless_it_is_claimed_or_may_yet_be() {
        let reaper = Arc::new(Reaper::default());
        let orphan = dead_orphan();
        let starting = reaper.starting();
        reaper.sweep();
        assert!(is_there(orphan));
        let claim = reaper.claim(orphan);
        drop(starting);
        reaper.sweep();
        assert!(is_there(orphan));
        drop(claim);
        reaper.sweep();
        assert!(!is_there(orphan));
    }

    #[test]
    fn a_child_of_our_own_keeps_its_status() {
        let mut child = std::process::Command::new("false").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        Reaper::default().sweep();
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}
