//! How a phase is run: the same for all of them, on both sides.

use std::time::{Duration, Instant};

use crate::error::{chain, Error};
use crate::faults::{Fault, Faults};
use crate::id::MigrationId;
use crate::journal::Role;
use crate::phase::Phase;
use crate::progress::{Event, Progress};
use crate::report::Took;
use crate::transport::Deadline;
use crate::wire::WireError;

/// The phases of one side of a migration.
pub(crate) struct Phases<'a> {
    id: MigrationId,
    role: Role,
    progress: &'a dyn Progress,
    faults: &'a dyn Faults,
    took: Vec<Took>,
    begun: Instant,
}

impl<'a> Phases<'a> {
    pub(crate) fn new(
        id: MigrationId,
        role: Role,
        progress: &'a dyn Progress,
        faults: &'a dyn Faults,
    ) -> Self {
        Self { id, role, progress, faults, took: Vec::new(), begun: Instant::now() }
    }

    /// Runs a phase, which is to be over at the deadline that it is given.
    pub(crate) fn run<T>(
        &mut self,
        phase: Phase,
        limit: Duration,
        work: impl FnOnce(Deadline) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let span =
            tracing::info_span!("phase", migration = %self.id, role = self.role.name(), phase = phase.name());
        let _entered = span.enter();
        self.progress.event(Event::PhaseBegun { phase });
        let begun = Instant::now();
        let deadline = Deadline::after(limit);
        let result = self.at(phase.name()).and_then(|()| work(deadline)).map_err(|error| match error {
            Error::Wire(WireError::Silent) if deadline.is_over() => Error::TooLong(phase),
            error => error,
        });
        let result = result.and_then(|done| self.at(&format!("{phase}-done")).map(|()| done));
        let milliseconds = milliseconds(begun.elapsed());
        self.took.push(Took { phase, milliseconds });
        let failed = result.as_ref().err().map(|error| chain(error));
        match &failed {
            None => tracing::info!(milliseconds, "done"),
            Some(reason) => tracing::warn!(milliseconds, reason, "failed"),
        }
        self.progress.event(Event::PhaseEnded { phase, milliseconds, failed });
        result
    }

    fn at(&self, point: &str) -> Result<(), Error> {
        self.points().at(point)
    }

    /// Where a test may interfere within a phase.
    pub(crate) const fn points(&self) -> Points<'a> {
        Points { role: self.role, faults: self.faults }
    }

    pub(crate) fn took(&self) -> Vec<Took> {
        self.took.clone()
    }

    /// How long a phase took that is over; nothing of one that was not run.
    pub(crate) fn took_of(&self, phase: Phase) -> Duration {
        let took = self.took.iter().filter(|took| took.phase == phase).map(|took| took.milliseconds);
        Duration::from_millis(took.sum())
    }

    pub(crate) fn total(&self) -> u64 {
        milliseconds(self.begun.elapsed())
    }
}

/// Where a test may interfere.
#[derive(Clone, Copy)]
pub(crate) struct Points<'a> {
    role: Role,
    faults: &'a dyn Faults,
}

impl Points<'_> {
    pub(crate) fn at(self, point: &str) -> Result<(), Error> {
        match self.faults.at(self.role, point) {
            Fault::None => Ok(()),
            Fault::Fail(reason) => Err(Error::Injected(reason)),
            Fault::Die => Err(Error::Died),
        }
    }
}

pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
