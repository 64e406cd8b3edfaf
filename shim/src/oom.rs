//! Tells containerd when the kernel killed for want of memory in a container.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;
use tokio::task::JoinHandle;

use crate::cgroup::Cgroup;
use crate::sys;

/// A watch on a container's memory cgroup. Gone when dropped.
#[derive(Debug)]
pub(crate) struct OomWatch {
    shared: Arc<Shared>,
    watcher: JoinHandle<()>,
}

struct Shared {
    source: Source,
    /// Locked while it is looked and reported, so that who looked in vain knows that all is reported.
    report: Mutex<Box<dyn Fn() + Send>>,
}

/// What becomes ready when the kernel has killed, and how to tell whether it did.
#[derive(Debug)]
enum Source {
    /// The kernel counts its kills in an eventfd.
    V1 { kills: EventFd, ready: AsyncFd<OwnedFd>, control: PathBuf },
    /// The kernel says that the counters in a file have changed.
    V2 { changes: Inotify, ready: AsyncFd<OwnedFd>, counters: PathBuf, seen: Mutex<u64> },
}

impl OomWatch {
    /// Calls `report` after each kill in `cgroup`.
    pub(crate) fn new(cgroup: &Cgroup, report: impl Fn() + Send + 'static) -> io::Result<Self> {
        let memory = cgroup.controller("memory").ok_or(io::ErrorKind::NotFound)?;
        let source = match cgroup {
            Cgroup::V1(_) => Source::v1(memory)?,
            Cgroup::V2(_) => Source::v2(memory)?,
        };
        let shared = Arc::new(Shared { source, report: Mutex::new(Box::new(report)) });
        let watched = Arc::clone(&shared);
        let watcher = tokio::spawn(async move {
            while let Ok(()) = watched.source.changed().await {
                watched.look();
            }
        });
        Ok(Self { shared, watcher })
    }

    /// Reports what has happened until now.
    pub(crate) fn look(&self) {
        self.shared.look();
    }
}

impl Shared {
    fn look(&self) {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if self.source.take() {
            report();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl Drop for OomWatch {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Source {
    fn v1(memory: &Path) -> io::Result<Self> {
        let control = memory.join("memory.oom_control");
        let file = std::fs::File::open(&control)?;
        let kills = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let order = format!("{} {}", kills.as_fd().as_raw_fd(), file.as_raw_fd());
        std::fs::write(memory.join("cgroup.event_control"), order)?;
        let ready = sys::watch(kills.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self::V1 { kills, ready, control })
    }

    fn v2(memory: &Path) -> io::Result<Self> {
        let counters = memory.join("memory.events");
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        changes.add_watch(&counters, AddWatchFlags::IN_MODIFY)?;
        let seen = Mutex::new(oom_kills(&counters).unwrap_or(0));
        let ready = sys::watch(changes.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self::V2 { changes, ready, counters, seen })
    }

    async fn changed(&self) -> io::Result<()> {
        match self {
            Self::V1 { ready, .. } => ready.readable().await.map(|mut guard| guard.clear_ready()),
            Self::V2 { ready, changes, .. } => {
                let mut guard = ready.readable().await?;
                // What changed is in the file.
                match guard.try_io(|_| changes.read_events().map_err(io::Error::from)) {
                    Ok(result) => result.map(|_| ()),
                    Err(_would_block) => Ok(()),
                }
            }
        }
    }

    /// Whether there was a kill since the last time.
    fn take(&self) -> bool {
        match self {
            // Removing the cgroup is an event too.
            Self::V1 { kills, control, .. } => kills.read().is_ok_and(|count| count > 0) && control.exists(),
            Self::V2 { counters, seen, .. } => {
                let Some(kills) = oom_kills(counters) else { return false };
                let before = {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    std::mem::replace(&mut *seen, kills)
                };
                kills > before
            }
        }
    }
}

fn oom_kills(counters: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(counters).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// A cgroup of version 2 as a plain file: inotify is the same for both.
    #[tokio::test]
    async fn a_kill_is_reported_once() {
        let directory = tempfile::tempdir().unwrap();
        let events = directory.path().join("memory.events");
        std::fs::write(&events, "low 0\noom 0\noom_kill 2\n").unwrap();
        let (reports, mut reported) = mpsc::unbounded_channel();
        let cgroup = Cgroup::V2(directory.path().into());
        let watch = OomWatch::new(&cgroup, move || reports.send(()).unwrap()).unwrap();
        watch.look();
        assert!(reported.try_recv().is_err());
        std::fs::write(&events, "low 0\noom 1\noom_kill 3\noom_group_kill 0\n").unwrap();
        tokio::time::timeout(Duration::from_secs(5), reported.recv()).await.unwrap().unwrap();
        watch.look();
        assert!(reported.try_recv().is_err());
    }

    #[test]
    fn a_container_without_memory_cgroup_is_not_watched() {
        let cgroup = Cgroup::V1(std::collections::HashMap::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async { OomWatch::new(&cgroup, || ()).unwrap_err() });
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
