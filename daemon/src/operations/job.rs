//! The work of an operation: recorded, done, recorded, and what it may say while it goes on.

use std::sync::Arc;

use fastmig_api::event::What;
use fastmig_api::{Code, ErrorInfo, MigrationReport, Operation};
use serde_json::Value;

use super::entry::Entry;
use super::registry::Registry;

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

    /// Records, works, records. What is not on disk is not begun.
    pub(super) fn run(&self, work: impl FnOnce(&Self) -> Result<Value, ErrorInfo>) {
        let begun = self.entry.record().clone();
        let Operation { id, kind, container, .. } = &begun.operation;
        let span = tracing::info_span!("operation", id, %kind, container, caller = begun.caller);
        let _entered = span.enter();
        let _scope = fastmig_engine::trace::scope(id);
        let outcome = match self.registry.shelf().store(&begun) {
            Ok(()) => {
                self.tell(What::OperationStarted { started: Box::new(self.entry.operation()) });
                work(self)
            }
            Err(e) => Err(ErrorInfo::new(Code::Internal, format!("the operation cannot be recorded: {e}"))
                .with_remedy("nothing was begun; make room in the daemon's state directory")),
        };
        if let Ok(report) = &outcome {
            self.registry.metrics().took(&kind.to_string(), report);
        }
        let ended = self.conclude(outcome);
        self.registry.metrics().operation(&ended);
        self.tell(What::OperationEnded { ended: Box::new(ended) });
        self.entry.tell_over();
    }

    fn conclude(&self, outcome: Result<Value, ErrorInfo>) -> Operation {
        let mut record = self.entry.record();
        record.conclude(outcome);
        record.operation.took_ms = self.entry.took_ms();
        if let Err(e) = self.registry.shelf().store(&record) {
            tracing::error!(operation = record.operation.id, error = %e, "an operation's end cannot be recorded");
        }
        record.operation.clone()
    }
}
