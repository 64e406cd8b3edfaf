//! An application that stands still, and the ways on from there. Forgotten, it runs on.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::container::Container;
use crate::freeze::awake::Awake;
use crate::freeze::watchdog::Watchdog;
use crate::tree::cgroup::ApplicationCgroup;
use crate::tree::{application, network_lock, sockets};
use crate::Error;

/// How long a child may take to begin: mostly much less. CRIU tells of those that take longer.
const MOMENTS: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
    Duration::from_millis(32),
];

/// The application, frozen; thawed again on drop unless it was paused before or shall stay so.
#[derive(Debug)]
pub(crate) struct Frozen {
    cgroup: ApplicationCgroup,
    thaw: bool,
    watchdog: Option<Watchdog>,
    _awake: Awake,
}

impl Frozen {
    pub(crate) fn enter(container: &Container, paused: bool) -> Result<Self, Error> {
        let cgroup = container.application_cgroup()?;
        if paused {
            let frozen = Self { cgroup, thaw: false, watchdog: None, _awake: Awake::keep() };
            return frozen.require_none_stopped(container).map(|()| frozen);
        }
        Self::enter_watched(container, watchdog(container)?)
    }

    /// The same, with a watchdog that was started before.
    pub(crate) fn enter_watched(container: &Container, mut watchdog: Watchdog) -> Result<Self, Error> {
        let cgroup = container.application_cgroup()?;
        let awake = Awake::keep();
        watchdog.arm().map_err(|e| Error::io("arm the watchdog", Path::new("/bin/sh"), e))?;
        container.freeze()?;
        let frozen = Self { cgroup, thaw: true, watchdog: Some(watchdog), _awake: awake };
        frozen.let_children_begin(container)?;
        frozen.require_none_stopped(container)?;
        Ok(frozen)
    }

    /// A tracer wakes whom a signal has stopped, and waits until that has come to it, without a limit.
    fn require_none_stopped(&self, container: &Container) -> Result<(), Error> {
        if self.cgroup.lets_tracers_wake() {
            return Ok(());
        }
        match self.cgroup.pids().into_iter().find(|pid| application::is_stopped(*pid)) {
            Some(pid) => Err(Error::Stopped { id: container.key().id().into(), pid }),
            None => Ok(()),
        }
    }

    /// Who has called vfork(2) does nothing, also for CRIU, before its child has executed something or ended; frozen, the
    /// child never does. Both get a moment to come past it.
    fn let_children_begin(&self, container: &Container) -> Result<(), Error> {
        for pause in MOMENTS {
            if !self.cgroup.pids().into_iter().any(application::waits_for_child_to_begin) {
                break;
            }
            self.cgroup.thaw().map_err(|e| Error::io("thaw", self.cgroup.directory(), e))?;
            std::thread::sleep(pause);
            container.freeze()?;
        }
        Ok(())
    }

    pub(crate) fn leave(mut self, container: &Container) -> Result<(), Error> {
        let result = if self.thaw { self.cgroup.thaw() } else { Ok(()) };
        self.thaw = false;
        result.map_err(|e| Error::io("thaw the application of", Path::new(container.key().id()), e))
    }

    /// From here on it stays frozen, whatever becomes of us.
    pub(crate) fn keep(mut self) {
        self.thaw = false;
        self.watchdog = None;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.thaw {
            if let Err(e) = self.cgroup.thaw() {
                tracing::error!(error = %e, "the application could not be thawed");
            }
        }
    }
}

/// What thaws the application should we die.
pub(crate) fn watchdog(container: &Container) -> Result<Watchdog, Error> {
    let cgroup = container.application_cgroup()?;
    Watchdog::start(&cgroup).map_err(|e| Error::io("start", Path::new("/bin/sh"), e))
}

/// A dumped application whose tasks are stopped and whose connections may be locked; on drop both are undone, for it
/// is to run on after all.
#[derive(Debug)]
pub(crate) struct Held {
    pid: i32,
    cgroup: ApplicationCgroup,
    table: Option<String>,
    release: bool,
}

impl Held {
    /// In the container whose PID 1 is `pid`; `table` locks its connections.
    pub(crate) fn new(pid: i32, cgroup: ApplicationCgroup, table: Option<String>) -> Self {
        Self { pid, cgroup, table, release: true }
    }

    /// It does not run on, or not by us: the lock stays, under this name.
    pub(crate) fn keep(mut self) -> Option<String> {
        self.release = false;
        std::mem::take(&mut self.table)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.release {
            return;
        }
        if self.table.is_some() {
            end_repair(&self.cgroup);
        }
        self.cgroup.signal_all(Signal::SIGCONT);
        let Some(table) = &self.table else { return };
        if let Err(e) = network_lock::release(self.pid, table) {
            tracing::error!(table, error = %e, "the lock on the connections stays");
        }
    }
}

/// Lets kept connections speak again, before their application does.
pub(crate) fn end_repair(cgroup: &ApplicationCgroup) {
    if let Err(e) = sockets::end_repair(cgroup.pids()) {
        tracing::error!(error = %e, "a connection that was to be kept stays mute");
    }
}
