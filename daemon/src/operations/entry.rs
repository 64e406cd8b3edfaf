//! One operation in memory.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastmig_api::{ErrorInfo, Operation};
use serde_json::{json, Value};
use tokio::sync::watch;

use super::record::Record;
use super::Ending;
use crate::events::About;

type Cancel = Box<dyn Fn(Ending) -> bool + Send + Sync>;

/// The record, and what only counts while it is being done.
pub(super) struct Entry {
    record: Mutex<Record>,
    begun: Instant,
    over: watch::Sender<bool>,
    cancel: Mutex<Option<Cancel>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Entry {
    pub(super) fn new(record: Record) -> Arc<Self> {
        let over = watch::Sender::new(record.is_over());
        Arc::new(Self { record: Mutex::new(record), begun: Instant::now(), over, cancel: Mutex::new(None) })
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_cancel(&self, cancel: Cancel) {
        *self.cancelling() = Some(cancel);
    }

    /// Asks for its end; answers whether it can still be ended so.
    pub(super) fn cancel(&self, why: Ending) -> bool {
        let cancel = self.cancelling();
        !self.is_over() && cancel.as_ref().is_some_and(|cancel| cancel(why))
    }

    fn cancelling(&self) -> MutexGuard<'_, Option<Cancel>> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it has been done, in milliseconds.
    pub(super) fn took_ms(&self) -> u64 {
        milliseconds(self.begun.elapsed())
    }

    /// Lets those who wait go on.
    pub(super) fn tell_over(&self) {
        self.over.send_replace(true);
    }

    pub(super) fn about(&self) -> About {
        let operation = &self.record().operation;
        About {
            operation: Some(operation.id.clone()),
            key: operation.key.clone(),
            container: Some(operation.container.clone()),
        }
    }

    /// As it is now.
    pub(super) fn operation(&self) -> Operation {
        let record = self.record();
        let mut operation = record.operation.clone();
        if !record.is_over() {
            operation.took_ms = self.took_ms();
        }
        operation
    }

    pub(super) async fn wait(&self) {
        let mut over = self.over.subscribe();
        // The sender lives as long as the entry.
        let _ = over.wait_for(|over| *over).await;
    }

    /// What is answered to whoever asked.
    pub(super) fn answer(&self) -> Result<Value, ErrorInfo> {
        let record = self.record();
        let operation = &record.operation;
        if let Some(error) = &operation.error {
            return Err(ErrorInfo { operation: Some(operation.id.clone()), ..error.clone() });
        }
        Ok(json!({
            "operation": operation.id,
            "container": operation.container,
            "started_at": operation.started_at,
            "took_ms": operation.took_ms,
            "report": record.report,
        }))
    }

    pub(super) fn is_over(&self) -> bool {
        self.record().is_over()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
