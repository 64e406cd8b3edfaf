//! At the start: what was interrupted is finished or undone.

use std::sync::Arc;

use fastmig_api::migration::Outcome;
use fastmig_api::{Code, ErrorInfo};
use fastmig_migrate::journal::{Record, Role};
use fastmig_migrate::options::Limits;
use fastmig_migrate::progress::NoProgress;
use fastmig_migrate::recover::{Recovered, Recovery};

use super::located::Located;
use super::Migrations;
use crate::daemon::Daemon;
use crate::work;

impl Daemon {
    /// Brings to its end what needs no other host, and begins to ask the others for the rest. Blocks; to be called before
    /// anybody is served.
    pub(crate) fn recover(self: &Arc<Self>) {
        let limits = Limits::default();
        for recovered in self.migrations.recovery(&limits).settle_here() {
            self.note(&recovered);
            if recovered.needs_peer() {
                let daemon = self.clone();
                tokio::task::spawn_blocking(move || daemon.ask(&recovered.record));
            } else if recovered.is_owed() {
                let daemon = self.clone();
                tokio::task::spawn_blocking(move || daemon.follow(&recovered.record));
            }
        }
    }

    /// Asks for as long as the other host is silent and this daemon lives.
    fn ask(&self, record: &Record) {
        let limits = Limits::default();
        let migrations = &self.migrations;
        let recovered = migrations.recovery(&limits).ask(record, &NoProgress, &migrations.leaving);
        self.note(&recovered);
    }

    /// Looks after an application whose memory is still on its way: to its end, unless this daemon ends before.
    fn follow(&self, record: &Record) {
        let limits = Limits::default();
        let migrations = &self.migrations;
        let progress = migrations.live.arrival(record.id);
        if let Some(located) = Located::read(&record.facts) {
            migrations.live.placed(record.id, &record.peer, &record.container, &located.id);
        }
        let recovery = migrations.recovery(&limits);
        self.note(&recovery.follow(record, progress.as_ref(), &migrations.leaving));
    }

    /// The operation that began it is told how it ended.
    fn note(&self, recovered: &Recovered) {
        let record = &recovered.record;
        tracing::info!(
            migration = %record.id, role = record.role.name(), state = ?record.state, trouble = recovered.trouble,
            "an interrupted migration"
        );
        let Some(operation) = Located::read(&record.facts).and_then(|located| located.operation) else {
            return;
        };
        if record.role != Role::Source {
            return;
        }
        let report = self.migrations.live.report_of(record, &self.migrations.name);
        let reason = report.reason.clone().or(recovered.trouble.clone()).unwrap_or_default();
        let outcome = match report.outcome {
            Outcome::Moved => work::report(&report),
            Outcome::Undecided | Outcome::Running => Err(ErrorInfo::new(Code::Peer, reason)
                .with_remedy("the application stays stopped here until the destination's daemon answers")),
            Outcome::Lost => Err(ErrorInfo::new(Code::Internal, reason)
                .with_remedy("it had moved, and ended there; start it anew")),
            _ => Err(ErrorInfo::new(Code::Internal, reason).with_remedy("the application runs on here")),
        };
        if let Err(e) = self.operations.settle(&operation, outcome) {
            tracing::warn!(operation, error = %e, "an operation's end cannot be recorded");
        }
    }
}

impl Migrations {
    fn recovery<'a>(&'a self, limits: &'a Limits) -> Recovery<'a> {
        Recovery {
            journal: &self.journal,
            origin: self.host.as_ref(),
            host: self.host.as_ref(),
            hooks: self.commands.as_ref(),
            peers: &self.hosts,
            limits,
            counter: &self.counter,
        }
    }
}
