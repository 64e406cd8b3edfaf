//! What the work of an operation may say while it goes on.

use std::sync::Arc;

use fastmig_api::event::What;
use fastmig_api::MigrationReport;

use super::registry::{Entry, Registry};

/// Why an operation is to end before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Somebody asked for it.
    Asked,
    /// The daemon stops.
    DaemonStops,
}

/// An operation, as its own work sees it. Its copies are one.
#[derive(Debug, Clone)]
pub struct Job {
    pub(super) registry: Arc<Registry>,
    pub(super) entry: Arc<Entry>,
}

impl Job {
    /// The operation's id.
    #[must_use]
    pub fn id(&self) -> String {
        self.entry.record().operation.id.clone()
    }

    /// Tells all listeners.
    pub fn tell(&self, what: What) {
        let about = self.entry.about();
        self.registry.bus().publish(about, what);
    }

    /// What is being done.
    pub fn phase(&self, phase: &str) {
        self.entry.record().operation.phase = Some(phase.to_owned());
    }

    /// The migration's report, as far as it is.
    pub fn migration(&self, report: MigrationReport) {
        self.entry.record().operation.migration = Some(report);
    }

    /// How it can be cancelled: `cancel` answers whether that is still possible.
    pub fn cancelled_by(&self, cancel: impl Fn(Ending) -> bool + Send + Sync + 'static) {
        self.entry.set_cancel(Box::new(cancel));
    }
}
