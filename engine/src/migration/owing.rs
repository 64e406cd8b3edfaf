//! An application that runs here while some of its memory is still at the source.

use std::time::Duration;

use super::arrival::Arrival;
use super::filler::Filler;
use crate::container::{Container, Operation};
use crate::state::Failure;
use crate::Error;

/// A container whose application runs, and is owed memory. It is locked; dropped, the application is left as it is, and its
/// memory comes all the same.
#[derive(Debug)]
pub struct Owing {
    container: Container,
    holder: Holder,
    filler: Filler,
}

/// Who holds the container's lock.
#[derive(Debug)]
enum Holder {
    Arrival(Box<Arrival>),
    Found(Box<Operation>),
}

impl Holder {
    fn operation(&mut self) -> &mut Operation {
        match self {
            Self::Arrival(arrival) => arrival.operation(),
            Self::Found(operation) => operation,
        }
    }
}

impl Owing {
    pub(super) fn new(arrival: Arrival, filler: Filler) -> Self {
        let container = arrival.container().clone();
        Self { container, holder: Holder::Arrival(arrival.into()), filler }
    }

    pub(super) fn found(container: Container, operation: Operation, filler: Filler) -> Self {
        Self { container, holder: Holder::Found(operation.into()), filler }
    }

    /// Waits for the end, for so long. Whether all is there.
    ///
    /// # Errors
    /// When it will never be.
    pub fn wait(&self, patience: Duration) -> Result<bool, String> {
        self.filler.wait(patience)
    }

    /// Bytes that are there, and how often the application waited for some of them.
    #[must_use]
    pub fn told(&self) -> (u64, u64) {
        self.filler.told()
    }

    /// All is there: nothing of how it came stays.
    ///
    /// # Errors
    /// When the container's state cannot be written.
    pub fn settle(mut self) -> Result<(), Error> {
        self.filler.end();
        let operation = self.holder.operation();
        operation.record.migration = None;
        operation.save()
    }

    /// It cannot run on: it is killed, and the container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn lose(mut self, reason: &str) -> Result<(), Error> {
        let operation = self.holder.operation();
        super::settle::empty(&self.container, operation.record.migration.as_ref())?;
        self.filler.stop();
        operation.record.last_failure = Some(Failure::because("migrate into", reason));
        operation.record.migration = None;
        operation.save()
    }
}
