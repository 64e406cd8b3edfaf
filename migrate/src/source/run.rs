//! A departure from its begin to its report.

use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::Instant;

use serde_json::Value;

use super::ask::hello;
use super::counter::Desk;
use super::{Plan, Source};
use crate::chunk::Chooser;
use crate::ends::{Files, InDoubt, Leaving};
use crate::error::{chain, Error};
use crate::hooks::Stage;
use crate::images::{MemoryServer, Meter};
use crate::journal::{Record, Role, Serving};
use crate::options::Strategy;
use crate::phase::Phase;
use crate::phases::{milliseconds, Phases};
use crate::report::{Bytes, Forecast, Outcome, Report, Round, RoundsEnd, Took};
use crate::talk::Talk;
use crate::wire::{Channel, Message, Purpose};

/// A link that is slow is not silent: a chunk may take so many times as long to be taken.
const SLOW: u32 = 3;

/// Moves an application.
pub(super) fn run(source: &Source<'_>, leaving: Box<dyn Leaving>, plan: &Plan) -> Report {
    let span =
        tracing::info_span!("migration", id = %plan.id, role = "source", container = plan.wanted.container);
    let _entered = span.enter();
    let chooser = Chooser::new(plan.options.compression);
    let meter = Meter::new(source.progress);
    let server = MemoryServer::new(&chooser, &meter, plan.options.limits.silence * SLOW);
    let mut departure = Departure {
        source,
        plan,
        phases: Phases::new(plan.id, Role::Source, source.progress, source.faults),
        images: ImagesOut { chooser: &chooser, meter: &meter, server: &server },
        account: Account::default(),
        hooked: false,
        frozen: None,
        desk: None,
    };
    let (outcome, reason) = thread::scope(|scope| {
        let end = departure.go(scope, leaving);
        server.stop();
        end
    });
    let report = departure.report(outcome, reason);
    // One that died, in a test, writes nothing.
    if report.reason.as_deref() != Some(&Error::Died.to_string()) {
        source.journal.report(&report, Role::Source);
    }
    report
}

pub(super) type End = (Outcome, Option<String>);

/// What carries images.
#[derive(Clone, Copy)]
pub(super) struct ImagesOut<'a> {
    pub(super) chooser: &'a Chooser,
    pub(super) meter: &'a Meter<'a>,
    pub(super) server: &'a MemoryServer<'a>,
}

/// What the report needs in the end.
#[derive(Default)]
pub(super) struct Account {
    pub(super) warnings: Vec<String>,
    pub(super) files: Files,
    pub(super) file_rounds: u32,
    pub(super) streams: u32,
    pub(super) strategy: Strategy,
    pub(super) why: String,
    pub(super) rounds: Vec<Round>,
    pub(super) rounds_end: Option<RoundsEnd>,
    pub(super) throttled: u32,
    /// Of [`crate::ends::Doubt`].
    pub(super) doubt: Option<Vec<InDoubt>>,
    pub(super) forecasts: Vec<Forecast>,
    pub(super) last_round: u64,
    pub(super) owed: u64,
    /// By which data connections are known.
    pub(super) token: String,
    /// What it takes to serve what is owed.
    pub(super) serving: Option<Serving>,
    pub(super) faults: u64,
    pub(super) filled_ms: Option<u64>,
    pub(super) predicted_freeze_ms: Option<u64>,
    pub(super) verified_pages: Option<u64>,
    /// Bytes sent on the control connection.
    pub(super) control: u64,
    pub(super) frozen_ms: Option<u64>,
    pub(super) destination: Vec<Took>,
}

/// A migration under way.
pub(super) struct Departure<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) plan: &'a Plan,
    pub(super) phases: Phases<'a>,
    pub(super) images: ImagesOut<'a>,
    pub(super) account: Account,
    /// The first hook was called.
    pub(super) hooked: bool,
    /// When it was stopped.
    pub(super) frozen: Option<Instant>,
    /// Where what is owed is fetched.
    pub(super) desk: Option<Arc<Desk>>,
}

/// What the destination said first.
pub(super) struct Welcome {
    pub(super) token: String,
    pub(super) lacks_image: bool,
}

impl<'a> Departure<'a> {
    fn go<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, mut leaving: Box<dyn Leaving>) -> End
    where
        'a: 'scope,
    {
        let plan = self.plan;
        let record = Record::new(plan.id, Role::Source, &plan.peer, plan.wanted.clone(), plan.facts.clone());
        if let Err(error) = self.source.journal.begin(record) {
            return (Outcome::Stayed, Some(chain(&error)));
        }
        let (mut talk, welcome) = match self.connect() {
            Ok(connected) => connected,
            Err(error) => return self.go_back(None, leaving, &error),
        };
        self.account.token.clone_from(&welcome.token);
        let open = self.source.counter.open(plan.id, &plan.peer, &welcome.token);
        self.desk = Some(Arc::clone(open.desk()));
        let held = self.travel(scope, &mut talk, &welcome, leaving.as_mut());
        match held {
            Ok(()) => self.decide(talk, leaving),
            Err(error) => self.go_back(Some(talk), leaving, &error),
        }
    }

    fn connect(&mut self) -> Result<(Talk, Welcome), Error> {
        let (source, plan) = (self.source, self.plan);
        let limits = &plan.options.limits;
        self.phases.run(Phase::Connect, limits.connect + limits.prepare, |deadline| {
            let connection = source.dialer.dial().map_err(Error::Dial)?;
            let channel = Channel::open(connection, plan.id, 0);
            let mut talk = Talk::asking(channel, source.cancel.clone(), limits.silence);
            let frozen_ms = milliseconds(limits.frozen);
            let apart_ms = milliseconds(limits.apart);
            let purpose = Purpose::Migrate { wanted: plan.wanted.clone(), frozen_ms, apart_ms };
            talk.say(&hello(purpose), &[], deadline)?;
            let welcome = talk.expect("welcome", deadline, |message| match message {
                Message::Welcome { token: Some(token), lacks_image, .. } => {
                    Some(Welcome { token, lacks_image })
                }
                _ => None,
            })?;
            Ok((talk, welcome))
        })
    }

    pub(super) fn hook(&mut self, phase: Phase, stage: Stage) -> Result<(), Error> {
        let facts = facts(self.plan, None);
        let hooks = self.source.hooks;
        self.phases.run(phase, self.plan.options.limits.frozen, |_| {
            hooks.run(stage, &facts).map_err(|source| Error::Hook { stage, source })
        })
    }

    pub(super) fn undo_hooks(&mut self, reason: &str) {
        if !self.hooked {
            return;
        }
        if let Err(error) = self.source.hooks.run(Stage::Aborted, &facts(self.plan, Some(reason))) {
            self.account.warnings.push(format!("an aborted hook failed: {}", chain(error.as_ref())));
        }
    }

    fn report(self, outcome: Outcome, reason: Option<String>) -> Report {
        let (plan, meter, account) = (self.plan, self.images.meter, self.account);
        let bytes = Bytes {
            raw: meter.raw(),
            zero: meter.zero(),
            memory: meter.memory(),
            wire: account.control + self.images.server.bytes_sent(),
            files: account.files.bytes,
        };
        Report {
            id: plan.id,
            container: plan.wanted.container.clone(),
            peer: plan.peer.clone(),
            outcome,
            reason,
            doubt: account.doubt,
            warnings: account.warnings,
            strategy: account.strategy,
            why: account.why,
            rounds: account.rounds,
            rounds_end: account.rounds_end,
            throttled: account.throttled,
            forecasts: account.forecasts.clone(),
            last_round: account.last_round,
            owed: account.owed,
            faults: account.faults,
            filled_ms: account.filled_ms,
            predicted_freeze_ms: account.predicted_freeze_ms,
            verified_pages: account.verified_pages,
            compression: plan.options.compression,
            chunks: self.images.chooser.used(),
            streams: account.streams,
            file_rounds: account.file_rounds,
            files: account.files.entries,
            bytes,
            source: self.phases.took(),
            destination: account.destination,
            frozen_ms: account.frozen_ms,
            total_ms: self.phases.total(),
        }
    }
}

impl Account {
    pub(super) fn count(&mut self, files: Files) {
        self.file_rounds += 1;
        self.files.entries += files.entries;
        self.files.bytes += files.bytes;
    }
}

/// What hooks on the source are told.
fn facts(plan: &Plan, reason: Option<&str>) -> Value {
    let record = Record::new(plan.id, Role::Source, &plan.peer, plan.wanted.clone(), plan.facts.clone());
    record.told_to_hooks(reason)
}
