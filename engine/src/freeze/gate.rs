//! The kernel kept ready for processes that are moved to another cgroup.
//!
//! Whoever moves a process takes a lock that no fork may pass meanwhile (`cgroup_threadgroup_rwsem`), and its first owner in a while
//! waits for a grace period of RCU, some 10 ms; whoever comes a moment later does not (`rcu_sync`, Linux 4.4 and later). CRIU has
//! to leave its tasks' cgroup in the middle of a restore: somebody takes that lock beforehand, again and again.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::tree::cgroup::ApplicationCgroup;

/// Half of a grace period, at most.
const PAUSE: Duration = Duration::from_millis(4);
/// A restore of a frozen application takes less; who hangs is not worth it.
const RESTORE: Duration = Duration::from_secs(10);
/// So much may be between a round and the freeze. What takes longer is another round, after which there is another gate.
const BETWEEN: Duration = Duration::from_secs(1);

/// Processes are moved without a wait while this is kept.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Its end tells the thread, which nobody waits for: it may wait for the kernel.
    _end: mpsc::Sender<()>,
}

impl Gate {
    /// For a restore, which begins by now. Writes `init`, the container's PID 1, into the cgroup where it is, which is above the
    /// application's: that takes the lock, and changes nothing.
    pub(crate) fn keep_open(cgroup: &ApplicationCgroup, init: i32) -> Self {
        Self::open(cgroup, init, RESTORE)
    }

    /// For a restore that may begin soon: on a busy host a grace period may take longer than what is left then.
    pub(crate) fn open_ahead(cgroup: &ApplicationCgroup, init: i32) -> Self {
        Self::open(cgroup, init, BETWEEN)
    }

    fn open(cgroup: &ApplicationCgroup, init: i32, longest: Duration) -> Self {
        let (end, ended) = mpsc::channel();
        let members = cgroup.members_around();
        thread::spawn(move || knock(members, init, longest, &ended));
        Self { _end: end }
    }
}

fn knock(members: Option<PathBuf>, init: i32, longest: Duration, ended: &mpsc::Receiver<()>) {
    let Some(members) = members else { return };
    let begun = Instant::now();
    while begun.elapsed() < longest {
        if let Err(error) = fs::write(&members, init.to_string()) {
            // The lock was taken and given back all the same, unless the container is gone.
            tracing::trace!(%error, "the init stays where it is");
        }
        if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
