//! Migrations under way, and who is told of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastmig_api::container::Migrating;
use fastmig_api::event::What;
use fastmig_api::migration::{Round, Side};
use fastmig_api::request::Strategy;
use fastmig_api::MigrationReport;
use fastmig_migrate::journal::{Record, Role};
use fastmig_migrate::phase::Phase;
use fastmig_migrate::progress::{Event, Progress};
use fastmig_migrate::MigrationId;

use super::report;
use crate::events::{About, Bus};

/// What is known of one.
#[derive(Debug, Clone, Default)]
struct Known {
    /// This host's container.
    container: String,
    peer: String,
    phase: Option<Phase>,
    raw: u64,
    wire: u64,
    /// How memory travels, and why so.
    strategy: Option<(Strategy, String)>,
    rounds: Vec<Round>,
    throttled: u32,
}

/// Those under way on this host.
#[derive(Debug)]
pub(super) struct Live {
    host: String,
    bus: Arc<Bus>,
    known: Mutex<HashMap<(MigrationId, Role), Known>>,
}

impl Live {
    pub(super) fn new(host: &str, bus: Arc<Bus>) -> Self {
        Self { host: host.to_owned(), bus, known: Mutex::default() }
    }

    /// An application leaves.
    pub(super) fn departure(&self, id: MigrationId, peer: &str, container: &str) {
        let known = Known { container: container.into(), peer: peer.into(), ..Known::default() };
        self.known().insert((id, Role::Source), known);
    }

    /// One comes; into which container is not known yet.
    pub(super) fn arrival(self: &Arc<Self>, id: MigrationId) -> Arc<dyn Progress> {
        self.known().insert((id, Role::Destination), Known::default());
        Arc::new(Arriving { live: self.clone(), id })
    }

    /// Now it is.
    pub(super) fn placed(&self, id: MigrationId, peer: &str, from: &str, container: &str) {
        tracing::info!(migration = %id, peer, from, container, "an application comes");
        if let Some(known) = self.known().get_mut(&(id, Role::Destination)) {
            known.container = container.to_owned();
            known.peer = peer.to_owned();
        }
    }

    /// It is over.
    pub(super) fn ended(&self, id: MigrationId, role: Role) {
        self.known().remove(&(id, role));
    }

    /// Whether a departure can still be given up.
    pub(super) fn is_undecided(&self, id: MigrationId) -> bool {
        let known = self.known();
        let phase = known.get(&(id, Role::Source)).map(|known| known.phase);
        phase.is_some_and(|phase| phase.is_none_or(|phase| phase < Phase::Commit))
    }

    /// How many arrive.
    pub(super) fn arriving(&self) -> usize {
        self.known().keys().filter(|(_, role)| *role == Role::Destination).count()
    }

    /// The one that a container takes part in.
    pub(super) fn of(&self, container: &str) -> Option<Migrating> {
        let known = self.known();
        let ((id, role), of) = known.iter().find(|(_, known)| known.container == container)?;
        Some(Migrating {
            id: id.to_string(),
            side: report::side(*role),
            peer: of.peer.clone(),
            phase: of.phase.map(Phase::name).unwrap_or_default().to_owned(),
        })
    }

    /// The report of a migration, as far as it is. `host` is this one's name.
    pub(super) fn report_of(&self, record: &Record, host: &str) -> MigrationReport {
        let begun = report::begun(record, host);
        if let Some(report) = &record.report {
            return report::ended(begun, report);
        }
        let mut begun = begun;
        if let Some(known) = self.known().get(&(record.id, record.role)) {
            begun.bytes.raw = known.raw;
            begun.bytes.wire = known.wire;
            if let Some((strategy, why)) = &known.strategy {
                (begun.strategy, begun.why) = (*strategy, why.clone());
            }
            begun.rounds.clone_from(&known.rounds);
            begun.predicted_freeze_ms = known.rounds.last().and_then(|round| round.predicted_freeze_ms);
            begun.throttled = known.throttled;
        }
        begun
    }

    /// Notes what happened, and says it in the words of the HTTP interface.
    pub(super) fn note(&self, id: MigrationId, role: Role, event: &Event) -> Option<What> {
        let mut all = self.known();
        let known = all.get_mut(&(id, role))?;
        match event {
            Event::PhaseBegun { phase } => known.phase = Some(*phase),
            Event::Bytes { raw, wire, .. } => (known.raw, known.wire) = (*raw, *wire),
            Event::Strategy { strategy, why } => {
                known.strategy = Some((report::strategy(*strategy), why.clone()));
            }
            Event::Round(round) => known.rounds.push(report::round(round)),
            Event::Throttled { percent } => known.throttled = *percent,
            _ => {}
        }
        let phase = known.phase.map(Phase::name).unwrap_or_default().to_owned();
        drop(all);
        Some(in_words(event, phase, report::side(role)))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(MigrationId, Role), Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_words(event: &Event, under_way: String, side: Side) -> What {
    match event {
        Event::PhaseBegun { phase } => {
            What::PhaseStarted { phase: phase.name().to_owned(), side, frozen: report::is_frozen(*phase) }
        }
        Event::PhaseEnded { phase, milliseconds, .. } => {
            What::PhaseEnded { phase: phase.name().to_owned(), side, ms: *milliseconds }
        }
        Event::Files { bytes, .. } => {
            What::Progress { phase: under_way, done: *bytes, total: *bytes, wire: *bytes, rate: 0 }
        }
        Event::Strategy { strategy, why } => {
            What::StrategyChosen { strategy: report::strategy(*strategy), why: why.clone() }
        }
        Event::Round(round) => What::RoundEnded(report::round(round)),
        Event::Throttled { percent } => What::Throttled { percent: *percent },
        Event::Bytes { raw, wire, expected, rate } => What::Progress {
            phase: under_way,
            done: *raw,
            total: expected.unwrap_or_default().max(*raw),
            wire: *wire,
            rate: *rate,
        },
        Event::Filling { owed, bytes, faults, milliseconds } => {
            What::MemoryFollows { owed: *owed, done: *bytes, faults: *faults, ms: *milliseconds }
        }
        Event::Asking { attempts, reason } => What::Warning {
            message: format!("the destination was asked {attempts} times for its decision: {reason}"),
        },
    }
}

/// Tells of an arrival, as long as it lasts.
#[derive(Debug)]
struct Arriving {
    live: Arc<Live>,
    id: MigrationId,
}

impl Progress for Arriving {
    fn event(&self, event: Event) {
        let Some(what) = self.live.note(self.id, Role::Destination, &event) else { return };
        let container = {
            let known = self.live.known();
            known.get(&(self.id, Role::Destination)).map(|known| known.container.clone())
        };
        let container = container.filter(|container| !container.is_empty());
        let about = About { operation: Some(self.id.to_string()), key: None, container };
        self.live.bus.publish(about, what);
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        tracing::debug!(migration = %self.id, host = self.live.host, "an arrival is over");
        self.live.ended(self.id, Role::Destination);
    }
}
