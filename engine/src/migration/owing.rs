//! An application that runs here while some of its memory is still at the source.

use std::time::Duration;

use super::arrival::Arrival;
use super::filling::Filling;
use crate::Error;

/// A container whose application runs, and is owed memory. It is locked; dropped, the application is left as it is.
#[derive(Debug)]
pub struct Owing(Arrival);

impl Owing {
    pub(super) const fn new(arrival: Arrival) -> Self {
        Self(arrival)
    }

    /// Waits for the end, for so long. Whether all is there.
    ///
    /// # Errors
    /// When it will never be.
    pub fn wait(&self, patience: Duration) -> Result<bool, String> {
        self.0.filling().map_or(Ok(true), |filling| filling.wait(patience))
    }

    /// Bytes that are there, and how often the application waited for some of them.
    #[must_use]
    pub fn told(&self) -> (u64, u64) {
        self.0.filling().map_or((0, 0), Filling::told)
    }

    /// All is there: nothing of how it came stays.
    ///
    /// # Errors
    /// When the container's state cannot be written.
    pub fn settle(self) -> Result<(), Error> {
        self.0.settle()
    }

    /// It cannot run on: it is killed, and the container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn lose(self, reason: &str) -> Result<(), Error> {
        self.0.lose(reason)
    }
}
