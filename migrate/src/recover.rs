//! What a daemon that starts does about migrations that its predecessor left open.

use std::io;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::destination::Host;
use crate::ends::{EndError, Owing};
use crate::error::chain;
use crate::faults::NoFaults;
use crate::hooks::{Hooks, Stage};
use crate::journal::{Journal, JournalError, Record, Role};
use crate::options::Limits;
use crate::phase::Phase;
use crate::phases::{milliseconds, Phases};
use crate::progress::{Event, Progress};
use crate::report::{Outcome, Report};
use crate::source::again;
use crate::source::ask::{ask, say_gone, settle};
use crate::source::{Counter, Origin};
use crate::state::State;
use crate::transport::Dialer;
use crate::wire::Verdict;

/// Why a migration is given up that was not decided.
const DIED: &str = "the daemon ended before it was decided";

/// Why an application ends that moved.
pub(crate) const WITHOUT_MEMORY: &str = "the application was killed, for it cannot run without its memory";
/// How often somebody is told how much has come.
const SPEAK: Duration = Duration::from_millis(250);
/// Filling has no limit of its own: what it waits for has.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// All that recovery works with.
#[derive(Clone, Copy)]
pub struct Recovery<'a> {
    /// This host's journal.
    pub journal: &'a Journal,
    /// This host, as a source.
    pub origin: &'a dyn Origin,
    /// This host, as a destination.
    pub host: &'a dyn Host,
    /// The operator's commands.
    pub hooks: &'a dyn Hooks,
    /// The other hosts.
    pub peers: &'a dyn Peers,
    /// Time limits.
    pub limits: &'a Limits,
    /// Where what is owed is fetched.
    pub counter: &'a Counter,
}

impl std::fmt::Debug for Recovery<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery").field("journal", self.journal).finish_non_exhaustive()
    }
}

/// Knows the other hosts.
pub trait Peers: Send + Sync {
    /// How to connect to one.
    ///
    /// # Errors
    /// When there is none of that name.
    fn dialer(&self, peer: &str) -> Result<Box<dyn Dialer>, EndError>;
}

/// What became of one record.
#[derive(Debug)]
pub struct Recovered {
    /// As it is now.
    pub record: Record,
    /// Why something is left to be done.
    pub trouble: Option<String>,
}

impl Recovered {
    /// Whether the destination has to be asked or told: see [`Recovery::ask`].
    #[must_use]
    pub fn needs_peer(&self) -> bool {
        let record = &self.record;
        record.role == Role::Source
            && (matches!(record.state, State::Deciding | State::Serving)
                || record.state == State::Done && !record.settled)
    }

    /// Whether memory is owed to it here: see [`Recovery::follow`].
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.record.role == Role::Destination && self.record.state == State::Filling
    }
}

impl Recovery<'_> {
    /// Brings all to its end that needs no other host: arrivals are released or abandoned, departures resumed or ended. To
    /// be called before the first connection is accepted. Returns all that was open.
    #[must_use]
    pub fn settle_here(&self) -> Vec<Recovered> {
        let records = self.journal.open_records().into_iter();
        records.map(|record| self.recovered(&record, self.settle_one(&record))).collect()
    }

    /// Asks the destination of a departure for its decision, until it answers, and does as it decided. Blocks for as long as
    /// that takes, unless it is told to leave.
    #[must_use]
    pub fn ask(&self, record: &Record, progress: &dyn Progress, cancel: &Cancel) -> Recovered {
        self.recovered(record, self.ask_one(record, progress, cancel))
    }

    /// Waits until all that is owed to an application here is there, or is lost, or this daemon is told to leave. Blocks.
    #[must_use]
    pub fn follow(&self, record: &Record, progress: &dyn Progress, cancel: &Cancel) -> Recovered {
        self.recovered(record, self.follow_one(record, progress, cancel))
    }

    fn recovered(&self, before: &Record, settled: Result<(), EndError>) -> Recovered {
        let trouble = settled.err().map(|error| chain(error.as_ref()));
        if let Some(reason) = &trouble {
            tracing::error!(migration = %before.id, reason, "a migration stays open");
        }
        let record = self.journal.record(before.id, before.role).unwrap_or_else(|_| before.clone());
        Recovered { record, trouble }
    }

    fn settle_one(&self, record: &Record) -> Result<(), EndError> {
        match (record.role, record.state) {
            (Role::Source, State::Preparing) => Ok(self.step(record, State::Aborted, Some(DIED))?),
            (Role::Source, State::Frozen | State::Resuming) => self.resume(record, DIED),
            (Role::Source, State::Committed) => self.end(record),
            (Role::Destination, State::Preparing | State::Held | State::Abandoning) => self.abandon(record),
            (Role::Destination, State::Committed) => self.release(record),
            // Only the destination knows, or nothing is to be done, or whoever fetches memory is looked after: see `follow`.
            _ => Ok(()),
        }
    }

    fn ask_one(&self, record: &Record, progress: &dyn Progress, cancel: &Cancel) -> Result<(), EndError> {
        // Looked up for each question: the host may be known again, or its name, or be at another address.
        let dialer = || self.peers.dialer(&record.peer).map_err(io::Error::other)?.dial();
        if record.state == State::Serving {
            self.end_serving(record, &dialer, progress, cancel)?;
        }
        if record.state == State::Deciding {
            match ask(&dialer, record.id, self.limits, progress, cancel) {
                Some(Verdict::Committed) => {
                    self.step(record, State::Committed, None)?;
                    self.end(record)?;
                }
                Some(Verdict::Owing | Verdict::Lost) => {
                    self.step(record, State::Serving, None)?;
                    self.end_serving(record, &dialer, progress, cancel)?;
                }
                Some(Verdict::Aborted) => return self.resume(record, "the destination gave up"),
                None => return Err("the destination's decision is not known".into()),
            }
        }
        settle(&dialer, record.id, self.limits)?;
        Ok(self.journal.settle(record.id, record.role)?)
    }

    /// The application lives at the destination, and here its memory does, as long as its processes are there. Once they are
    /// gone the destination is to know that nothing comes any more, and to say what became of it.
    fn end_serving(
        &self,
        record: &Record,
        dialer: &dyn Dialer,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<(), EndError> {
        let unknown = || EndError::from("how to serve it was not written down");
        let owed = record.serving.as_ref().ok_or_else(unknown);
        let owed = owed.and_then(|serving| Ok((serving, self.origin.found(record)?.owed()?)));
        let limits = self.limits;
        let verdict = match owed {
            Ok((serving, memory)) => {
                let counter = self.counter;
                again::serve(dialer, record, serving, &memory, limits, progress, cancel, counter)
            }
            Err(error) => {
                let reason = chain(error.as_ref());
                tracing::error!(migration = %record.id, reason, "what is owed cannot be served any more");
                let say_so = |dialer: &dyn Dialer| drop(say_gone(dialer, record.id, limits));
                again::until_it_needs_no_more(dialer, record, limits, cancel, say_so, None)
            }
        };
        match verdict {
            Some(Verdict::Committed | Verdict::Lost) => self.end(record),
            Some(_) => Err("the destination denies a commit".into()),
            None => Err("what became of the application at the destination is not known".into()),
        }
    }

    fn resume(&self, record: &Record, reason: &str) -> Result<(), EndError> {
        if record.state != State::Resuming {
            self.step(record, State::Resuming, Some(reason))?;
        }
        self.origin.found(record)?.resume()?;
        self.step(record, State::Aborted, None)?;
        self.undo_hooks(record, reason)
    }

    fn end(&self, record: &Record) -> Result<(), EndError> {
        self.origin.found(record)?.end()?;
        Ok(self.step(record, State::Done, None)?)
    }

    fn abandon(&self, record: &Record) -> Result<(), EndError> {
        if record.state != State::Abandoning {
            self.step(record, State::Abandoning, Some(DIED))?;
        }
        self.host.found(record)?.abandon()?;
        self.step(record, State::Abandoned, None)?;
        self.undo_hooks(record, DIED)
    }

    fn release(&self, record: &Record) -> Result<(), EndError> {
        drop(self.host.found(record)?.release()?);
        self.step(record, State::Released, None)?;
        self.hooks.run(Stage::PostRestore, &record.told_to_hooks(None))
    }

    fn follow_one(&self, record: &Record, progress: &dyn Progress, cancel: &Cancel) -> Result<(), EndError> {
        let mut phases = Phases::new(record.id, record.role, progress, &NoFaults);
        let owing = self.host.found(record)?.follow()?;
        let mut warnings = vec!["the daemon was started again while memory was owed".to_owned()];
        // Whether it ran before is not known.
        if let Err(error) = self.hooks.run(Stage::PostRestore, &record.told_to_hooks(None)) {
            warnings.push(chain(error.as_ref()));
        }
        let filled = phases.run(Phase::Fill, LONG, |_| Ok(until_filled(owing.as_ref(), progress, cancel)))?;
        let (told, milliseconds) = (owing.told(), milliseconds(phases.took_of(Phase::Fill)));
        let report = |outcome, reason| {
            Report::followed(record, outcome, reason, told, milliseconds, warnings, phases.took())
        };
        match filled {
            Ok(true) => {
                owing.settle()?;
                self.step(record, State::Released, None)?;
                self.journal.report(&report(Outcome::Moved, None), record.role);
                Ok(())
            }
            // Somebody else fetches it, and the next daemon looks after it.
            Ok(false) => Ok(()),
            Err(reason) => {
                let reason = format!("{WITHOUT_MEMORY}: {reason}");
                owing.lose(&reason)?;
                self.step(record, State::Lost, Some(&reason))?;
                self.journal.report(&report(Outcome::Lost, Some(reason)), record.role);
                Ok(())
            }
        }
    }

    fn undo_hooks(&self, record: &Record, reason: &str) -> Result<(), EndError> {
        self.hooks.run(Stage::Aborted, &record.told_to_hooks(Some(reason)))
    }

    fn step(&self, record: &Record, to: State, reason: Option<&str>) -> Result<(), JournalError> {
        self.journal.step(record.id, record.role, to, reason)
    }
}

/// Whether it was, before we were told to leave.
fn until_filled(owing: &dyn Owing, progress: &dyn Progress, cancel: &Cancel) -> Result<bool, String> {
    let begun = Instant::now();
    while !owing.wait(SPEAK)? {
        if cancel.is_leaving() {
            return Ok(false);
        }
        let ((bytes, faults), milliseconds) = (owing.told(), milliseconds(begun.elapsed()));
        progress.event(Event::Filling { owed: bytes, bytes, faults, milliseconds });
    }
    Ok(true)
}
