//! The decision about an application whose migration began in a process that is gone.

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::filler::Filler;
use super::mark::{Mark, Role};
use super::owing::Owing;
use super::{owed, throttle};
use crate::container::Container;
use crate::freeze::frozen::end_repair;
use crate::state::Failure;
use crate::tree::network_lock;
use crate::{recipient, ApplicationState, Error};

/// Where it runs from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Here: at the source it goes on, at the destination it begins.
    Here,
    /// Not here: the container is in standby.
    Elsewhere,
}

impl Container {
    /// The migration that this container is an end of, if any.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn migration(&self) -> Result<Option<Mark>, Error> {
        Ok(self.directory.load(&self.key)?.migration)
    }

    /// Settles migration `id`. Where nothing of it is left, there is nothing to do.
    ///
    /// # Errors
    /// When the container is another migration's, or the application can neither be thawed nor killed.
    pub fn settle(&self, id: &str, verdict: Verdict) -> Result<(), Error> {
        self.settle_for(id, verdict, None)
    }

    /// The application of migration `id`, which is decided to run here, and whoever brings its memory, when the process that
    /// began it is gone. It runs from here on.
    ///
    /// # Errors
    /// When the container is another migration's, or the application cannot be thawed.
    pub fn follow(&self, id: &str) -> Result<Owing, Error> {
        let mut operation = self.begin_settling()?;
        let out_of_turn = || Error::OutOfTurn { id: self.key.id().into(), action: "fill" };
        let mark = operation.record.migration.clone().ok_or_else(out_of_turn)?;
        if mark.id != id {
            return Err(Error::Migrating { id: self.key.id().into(), migration: mark.id });
        }
        let filler = Filler::of(self, mark.filler);
        if !self.has_ended()? {
            self.let_go(&mark, operation.record.network_lock.take())?;
        }
        operation.save()?;
        Ok(Owing::found(self.clone(), operation, filler))
    }

    /// What is owed to the application of this container does not come any more.
    ///
    /// # Errors
    /// When whoever waits for it cannot be told.
    pub fn forsake(&self, reason: &str) -> Result<(), Error> {
        let filler = self.migration()?.and_then(|mark| mark.filler);
        let told = Filler::of(self, filler).lose(reason);
        told.map_err(|e| Error::io("tell who fills the memory of", &self.directory.file(""), e))
    }

    /// Settles migration `id` whose application ran here, and cannot run on: it is killed, and its state says why.
    ///
    /// # Errors
    /// As of [`Container::settle`].
    pub fn settle_lost(&self, id: &str, reason: &str) -> Result<(), Error> {
        self.settle_for(id, Verdict::Elsewhere, Some(Failure::because("migrate into", reason)))
    }

    fn settle_for(&self, id: &str, verdict: Verdict, failure: Option<Failure>) -> Result<(), Error> {
        let mut operation = self.begin_settling()?;
        let Some(mark) = operation.record.migration.clone() else { return Ok(()) };
        if mark.id != id {
            return Err(Error::Migrating { id: self.key.id().into(), migration: mark.id });
        }
        match verdict {
            Verdict::Here => {
                self.let_go(&mark, operation.record.network_lock.take())?;
            }
            Verdict::Elsewhere => {
                empty(self, Some(&mark))?;
                Filler::of(self, mark.filler).stop();
            }
        }
        owed::forget(self);
        if failure.is_some() {
            operation.record.last_failure = failure;
        }
        operation.record.migration = None;
        throttle::undo(&mut operation)?;
        operation.save()
    }

    /// The application of a migration that came to nothing goes on, or that of one that is decided begins.
    pub(crate) fn let_go(&self, mark: &Mark, table: Option<String>) -> Result<(), Error> {
        let cgroup = self.application_cgroup()?;
        if mark.role == Role::Leaving {
            if table.is_some() {
                end_repair(&cgroup);
            }
            // CRIU has left its tasks stopped.
            cgroup.signal_all(Signal::SIGCONT);
        }
        if let Some(table) = table {
            if let Err(e) = network_lock::release(self.pid, &table) {
                tracing::warn!(table, error = %e, "the lock on connections stays");
            }
        }
        cgroup.thaw().map_err(|e| Error::io("thaw the application in", cgroup.directory(), e))
    }
}

/// Kills what is there of the application; the container is in standby.
pub(crate) fn empty(container: &Container, mark: Option<&Mark>) -> Result<(), Error> {
    let state = container.application();
    if matches!(state, Ok(ApplicationState::Running)) {
        container.end_application()?;
    } else {
        let cgroup = container.application_cgroup()?;
        cgroup
            .kill_before_it_runs(container.config.limits.freeze())
            .map_err(|e| Error::io("kill the application in", cgroup.directory(), e))?;
    }
    // It waits for an answer that will not come; nothing that it holds lives any more.
    if let Some(criu) = mark.and_then(|mark| mark.criu).filter(|criu| criu.runs()) {
        let _ = kill(Pid::from_raw(criu.pid), Signal::SIGKILL);
    }
    // An end that its policy would have decided about: the application lives elsewhere.
    container.decide_to_stay();
    match state {
        // Its PID 1 was killed. As long as something of the application was frozen it could not go.
        Err(_) if container.has_ended()? => Ok(()),
        Err(e) => Err(e),
        Ok(ApplicationState::Restoring) => {
            recipient::clear(container);
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
