//! Memory that follows the application, which runs already.

use std::time::{Duration, Instant};

use super::run::{Arrival, End};
use crate::cancel::Cancel;
use crate::ends::Owing;
use crate::error::{chain, Error};
use crate::journal::Role;
use crate::phase::Phase;
use crate::phases::milliseconds;
use crate::recover::WITHOUT_MEMORY;
use crate::report::Outcome;
use crate::state::State;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::Message;

/// How often the source hears of us.
const SPEAK: Duration = Duration::from_millis(250);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Filling has no limit of its own: what it waits for has.
const LONG: Duration = Duration::from_secs(24 * 3600);

impl Arrival<'_> {
    /// It runs; the source is told, and then again when all is here.
    pub(super) fn finish_owing(
        &mut self,
        talk: &mut Talk,
        trouble: Option<String>,
        owing: Box<dyn Owing>,
    ) -> End {
        let begun = Instant::now();
        let limits = &self.session.limits;
        self.warnings.extend(trouble.clone());
        let mut heard = talk.say(&Message::Committed { trouble }, &[], Deadline::after(limits.connect));
        if let Err(error) = self.after_restore() {
            if matches!(error, Error::Died) {
                std::mem::forget(owing);
                return (Outcome::Undecided, Some(chain(&error)));
            }
            self.warnings.push(chain(&error));
        }
        let filled = self.fill(talk, &mut heard, owing.as_ref());
        self.filled = owing.told();
        match filled {
            Ok(Ok(true)) => self.all_is_here(talk, heard, owing, milliseconds(begun.elapsed())),
            Ok(Ok(false)) => (Outcome::Undecided, Some("the daemon ends; memory is still on its way".into())),
            Ok(Err(reason)) => self.lost(talk, owing, &reason),
            Err(error) => {
                std::mem::forget(owing);
                (Outcome::Undecided, Some(chain(&error)))
            }
        }
    }

    /// Waits until all is here. What goes wrong besides does not change that it is needed.
    fn fill(
        &mut self,
        talk: &mut Talk,
        heard: &mut Result<(), Error>,
        owing: &dyn Owing,
    ) -> Result<Result<bool, String>, Error> {
        let (mut filled, cancel) = (None, &self.session.cancel);
        let run = self.phases.run(Phase::Fill, LONG, |_| {
            filled = Some(fill(talk, heard, owing, cancel));
            Ok(())
        });
        match run {
            Err(Error::Died) => return Err(Error::Died),
            Err(error) => self.warnings.push(chain(&error)),
            Ok(()) => {}
        }
        Ok(filled.unwrap_or_else(|| fill(talk, heard, owing, cancel)))
    }

    fn all_is_here(
        &mut self,
        talk: &mut Talk,
        heard: Result<(), Error>,
        owing: Box<dyn Owing>,
        milliseconds: u64,
    ) -> End {
        let (destination, id) = (self.destination, self.id);
        self.filled_ms = Some(milliseconds);
        if let Err(error) = owing.settle() {
            self.warnings.push(chain(error.as_ref()));
        }
        destination.journal.note_step(id, Role::Destination, State::Released, None);
        self.session.puller.close("all memory is here");
        let (bytes, faults) = self.filled;
        let here = Message::Here { bytes, faults, milliseconds };
        let deadline = Deadline::after(self.session.limits.connect);
        let told = heard.and_then(|()| talk.say(&here, &[], deadline)).and_then(|()| self.settle(talk));
        if let Err(error) = told {
            // The source asks when it needs to know.
            tracing::info!(reason = chain(&error), "the source does not hear the end");
        }
        (Outcome::Moved, None)
    }

    /// It could not be let run, and nobody else can fetch what it is owed.
    pub(super) fn lost_unreleased(&mut self, talk: &mut Talk, reason: &str) -> End {
        let (destination, id) = (self.destination, self.id);
        self.session.puller.close(reason);
        let lost = destination.journal.record(id, Role::Destination).map_err(|error| chain(&error)).and_then(
            |record| {
                let found = destination.host.found(&record).and_then(|found| found.lose(reason));
                found.map_err(|error| chain(error.as_ref()))
            },
        );
        match lost {
            Ok(()) => destination.journal.note_step(id, Role::Destination, State::Lost, Some(reason)),
            Err(error) => {
                self.warnings.push(format!(
                    "it could not be killed: {error}; this is tried again at the daemon's next start"
                ));
            }
        }
        let lost = Message::Lost { reason: reason.to_owned() };
        if let Err(error) = talk.say(&lost, &[], Deadline::after(PATIENCE)) {
            tracing::info!(reason = chain(&error), "the source does not hear the end");
        }
        (Outcome::Lost, Some(reason.to_owned()))
    }

    /// What is owed does not come: the application cannot run on.
    fn lost(&mut self, talk: &mut Talk, owing: Box<dyn Owing>, reason: &str) -> End {
        let (destination, id) = (self.destination, self.id);
        let reason = format!("{WITHOUT_MEMORY}: {reason}");
        tracing::error!(reason, "an application is lost");
        self.session.puller.close(&reason);
        match owing.lose(&reason) {
            Ok(()) => destination.journal.note_step(id, Role::Destination, State::Lost, Some(&reason)),
            Err(error) => self.warnings.push(format!(
                "it could not be killed: {}; this is tried again at the daemon's next start",
                chain(error.as_ref())
            )),
        }
        let lost = Message::Lost { reason: reason.clone() };
        if let Err(error) = talk.say(&lost, &[], Deadline::after(PATIENCE)) {
            tracing::info!(reason = chain(&error), "the source does not hear the end");
        }
        (Outcome::Lost, Some(reason))
    }
}

/// Waits until all is here, or this daemon ends, which is nothing to whoever fetches it; the source hears of us as long as it can.
fn fill(
    talk: &mut Talk,
    heard: &mut Result<(), Error>,
    owing: &dyn Owing,
    cancel: &Cancel,
) -> Result<bool, String> {
    while !owing.wait(SPEAK)? {
        if cancel.is_leaving() {
            return Ok(false);
        }
        if heard.is_ok() {
            let (bytes, faults) = owing.told();
            let filling = Message::Filling { bytes, faults };
            let said = talk.channel().send(&filling, &[], Deadline::after(PATIENCE));
            *heard = said.map_err(Error::from);
        }
    }
    Ok(true)
}
