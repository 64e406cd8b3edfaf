//! An application that runs while some of its memory is still in its checkpoint.
//!
//! Until all is there our death is its end: what it misses would read as zeros. A watcher sees to that.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Followed;
use crate::clock::milliseconds;
use crate::container::Container;
use crate::migration::filling::Filling;
use crate::migration::settle;
use crate::Error;

/// How often it is looked whether memory still comes.
const LOOK_UP: Duration = Duration::from_millis(200);

/// What the application misses.
#[derive(Debug)]
pub(super) struct Following<'a> {
    container: &'a Container,
    checkpoint: &'a Path,
    filling: Filling,
}

impl<'a> Following<'a> {
    /// What was restored is there, and frozen: it may run from here on.
    pub(super) fn begin(
        container: &'a Container,
        checkpoint: &'a Path,
        mut filling: Filling,
    ) -> Result<Self, Error> {
        let cgroup = container.application_cgroup()?;
        let failed = |e| Error::io("fill the memory in", cgroup.directory(), e);
        filling.go_on(&cgroup).map_err(failed)?;
        filling.watch(&cgroup).map_err(failed)?;
        Ok(Self { container, checkpoint, filling })
    }

    /// It runs.
    pub(super) fn release(&self) -> Result<(), Error> {
        let cgroup = self.container.application_cgroup()?;
        cgroup.thaw().map_err(|e| Error::io("thaw the application in", cgroup.directory(), e))
    }

    /// Waits until all is there. When it does not come the application is ended, and the container in standby.
    pub(super) fn wait(self) -> Result<Followed, Error> {
        let begun = Instant::now();
        match self.come() {
            Ok(()) => {
                let filled = self.filling.end(&self.container.application_cgroup()?);
                tracing::debug!(?filled, "all memory is here");
                Ok(Followed {
                    memory_ms: milliseconds(begun),
                    memory_bytes: filled.bytes,
                    faults: filled.faults,
                })
            }
            Err(reason) => {
                // Before the filling goes: what is missing then would be zeros.
                settle::empty(self.container, None)?;
                let id = self.container.key().id().into();
                Err(Error::MemoryLost { id, path: self.checkpoint.into(), reason })
            }
        }
    }

    fn come(&self) -> Result<(), String> {
        let patience = self.container.config.limits.criu();
        let (mut last, mut since) = (0, Instant::now());
        while !self.filling.wait(LOOK_UP)? {
            let (bytes, _) = self.filling.told();
            if bytes != last {
                (last, since) = (bytes, Instant::now());
            } else if since.elapsed() > patience {
                return Err(format!("nothing of it came for {patience:?}: {}", io::ErrorKind::TimedOut));
            }
        }
        Ok(())
    }
}
