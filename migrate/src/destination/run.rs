//! An arrival from its begin to its report.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::fill::Filling;
use super::serve::{Registered, Session};
use super::Destination;
use crate::ends::{Files, InDoubt, Waiting};
use crate::error::{chain, Error};
use crate::hooks::Stage;
use crate::id::MigrationId;
use crate::images::Store;
use crate::journal::{Record, Role};
use crate::options::Strategy;
use crate::phases::Phases;
use crate::report::{Bytes, Outcome, Report};
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::Channel;

/// The most that is waited for a source that was refused to close.
const GOODBYE: Duration = Duration::from_secs(2);
/// Takes a migration in.
pub(super) fn run(
    destination: &Destination,
    registered: Registered<'_>,
    channel: Channel,
    protocol: u32,
) -> Report {
    let id = channel.id();
    let session = Arc::clone(&registered.session);
    let container = &session.wanted.container;
    let span = tracing::info_span!("migration", %id, role = "destination", container, peer = session.peer);
    let _entered = span.enter();
    let progress = (destination.progress)(id);
    let mut arrival = Arrival {
        destination,
        session: &session,
        id,
        phases: Phases::new(id, Role::Destination, progress.as_ref(), destination.faults.as_ref()),
        store: Arc::new(Store::new(destination.bounds)),
        waiting: None,
        strategy: Strategy::default(),
        compares: false,
        filling: Filling::default(),
        owes: false,
        filled: (0, 0),
        filled_ms: None,
        doubt: None,
        warnings: Vec::new(),
        files: Files::default(),
        file_rounds: 0,
        hooked: false,
    };
    let mut talk = Talk::answering(channel, session.cancel.clone(), session.limits.silence);
    let (outcome, reason) = arrival.go(&mut talk, protocol);
    let report = arrival.report(outcome, reason);
    if report.reason.as_deref() != Some(&Error::Died.to_string()) {
        destination.journal.report(&report, Role::Destination);
    }
    // The container is free again; a source that says nothing must not hold it.
    drop(registered);
    if report.outcome == Outcome::Stayed {
        let reason = report.reason.clone().unwrap_or_default();
        talk.channel().give_up(reason, report.doubt.clone(), Deadline::after(GOODBYE));
        talk.channel().drain(Deadline::after(GOODBYE));
    }
    report
}

pub(super) type End = (Outcome, Option<String>);

/// A migration under way.
pub(super) struct Arrival<'a> {
    pub(super) destination: &'a Destination,
    pub(super) session: &'a Session,
    pub(super) id: MigrationId,
    pub(super) phases: Phases<'a>,
    pub(super) store: Arc<Store>,
    pub(super) waiting: Option<Box<dyn Waiting>>,
    pub(super) strategy: Strategy,
    /// All memory is compared.
    pub(super) compares: bool,
    /// The last round of memory, on its way.
    pub(super) filling: Filling,
    /// Memory is owed to it.
    pub(super) owes: bool,
    /// Bytes of that which are here, how often it waited for some, and how long it took.
    pub(super) filled: (u64, u64),
    pub(super) filled_ms: Option<u64>,
    /// Of [`crate::ends::Doubt`].
    pub(super) doubt: Option<Vec<InDoubt>>,
    pub(super) warnings: Vec<String>,
    pub(super) files: Files,
    pub(super) file_rounds: u32,
    /// The first hook was called.
    pub(super) hooked: bool,
}

impl Arrival<'_> {
    fn go(&mut self, talk: &mut Talk, protocol: u32) -> End {
        let session = self.session;
        let record =
            Record::new(self.id, Role::Destination, &session.peer, session.wanted.clone(), Value::Null);
        if let Err(error) = self.destination.journal.begin(record) {
            return (Outcome::Stayed, Some(chain(&error)));
        }
        match self.take_in(talk, protocol) {
            Ok(()) => self.run_it(talk),
            Err(error) => self.go_back(talk, &error),
        }
    }

    pub(super) fn undo_hooks(&mut self, reason: &str) {
        if !self.hooked {
            return;
        }
        if let Err(error) = self.destination.hooks.run(Stage::Aborted, &self.facts(Some(reason))) {
            self.warnings.push(format!("an aborted hook failed: {}", chain(error.as_ref())));
        }
    }

    pub(super) fn facts(&self, reason: Option<&str>) -> Value {
        let record = self.destination.journal.record(self.id, Role::Destination);
        record.map_or(Value::Null, |record| record.told_to_hooks(reason))
    }

    fn report(self, outcome: Outcome, reason: Option<String>) -> Report {
        let Session { wanted, peer, .. } = self.session;
        Report {
            doubt: self.doubt,
            warnings: self.warnings,
            strategy: self.strategy,
            owed: self.filled.0,
            faults: self.filled.1,
            filled_ms: self.filled_ms,
            streams: self.session.streams(),
            file_rounds: self.file_rounds,
            files: self.files.entries,
            bytes: Bytes { files: self.files.bytes, ..Bytes::default() },
            destination: self.phases.took(),
            total_ms: self.phases.total(),
            ..Report::bare(self.id, wanted.container.clone(), peer.clone(), outcome, reason)
        }
    }
}
