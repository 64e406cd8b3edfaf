//! The decision, and what follows from it on the source.

use std::thread;
use std::time::Duration;

use super::ask::{ask, settle};
use super::run::{Departure, End};
use super::serve::Served;
use super::Source;
use crate::ends::Leaving;
use crate::error::{chain, Error};
use crate::id::MigrationId;
use crate::journal::Role;
use crate::phase::Phase;
use crate::phases::milliseconds;
use crate::report::Outcome;
use crate::state::State;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::{Message, Verdict};

/// How long the destination's ear is looked for when the migration is given up.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Pauses between tries to end what has moved.
const END_AGAIN: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

impl Departure<'_> {
    /// The destination decides. From the commit on there is no way back but by its word.
    pub(super) fn decide(&mut self, mut talk: Talk, mut leaving: Box<dyn Leaving>) -> End {
        let (journal, id) = (self.source.journal, self.plan.id);
        let limits = &self.plan.options.limits;
        let mut sent = false;
        let serving = self.account.serving.take();
        let phases = &mut self.phases;
        let points = phases.points();
        let committed = phases.run(Phase::Commit, limits.commit, |deadline| {
            leaving.fence().map_err(Error::end("make sure that the application stays stopped"))?;
            points.at("fenced")?;
            journal.step_to_decision(id, serving)?;
            points.at("deciding")?;
            talk.check()?;
            talk.decide();
            sent = true;
            talk.say(&Message::Commit, &[], deadline)?;
            points.at("commit-sent")?;
            talk.expect("committed", deadline, |message| match message {
                Message::Committed { trouble } => Some(Ok(trouble)),
                Message::Lost { reason } => Some(Err(reason)),
                _ => None,
            })
        });
        match committed {
            Ok(Err(reason)) => self.lost(leaving, &reason),
            Ok(Ok(trouble)) => {
                self.account.warnings.extend(trouble.map(|trouble| format!("at the destination: {trouble}")));
                self.serve_and_end(Some(talk), leaving)
            }
            Err(error) if !sent || matches!(error, Error::Refused(_) | Error::Died) => {
                self.go_back(Some(talk), leaving, &error)
            }
            Err(error) => {
                self.account.control += talk.bytes_sent();
                // With the connection gone, a destination that has not committed gives up by itself.
                drop(talk);
                self.ask(leaving, &error)
            }
        }
    }

    /// The answer to the commit is lost.
    fn ask(&mut self, leaving: Box<dyn Leaving>, error: &Error) -> End {
        let source = self.source;
        let limits = &self.plan.options.limits;
        tracing::warn!(reason = chain(error), "the commit was not answered");
        match ask(source.dialer, self.plan.id, limits, source.progress, source.cancel) {
            Some(verdict @ (Verdict::Committed | Verdict::Owing | Verdict::Lost)) => {
                self.account
                    .warnings
                    .push(format!("the commit's answer was lost ({}) and asked for", chain(error)));
                match verdict {
                    Verdict::Owing => self.serve_and_end(None, leaving),
                    Verdict::Lost => self.lost(leaving, "the memory that it was owed did not come"),
                    _ => self.end(None, leaving),
                }
            }
            Some(Verdict::Aborted) => self.go_back(None, leaving, error),
            None => {
                let reason = format!("{}; the destination's decision is not known", chain(error));
                // It stays fenced: only forgotten by this process, for the next start to find.
                drop(leaving);
                (Outcome::Undecided, Some(reason))
            }
        }
    }

    /// It lives on the destination, which may be owed memory.
    fn serve_and_end(&mut self, talk: Option<Talk>, mut leaving: Box<dyn Leaving>) -> End {
        self.account.frozen_ms = self.frozen.take().map(|frozen| milliseconds(frozen.elapsed()));
        leaving.hang_up();
        if self.account.owed == 0 {
            return self.end(talk, leaving);
        }
        self.source.journal.note_step(self.plan.id, Role::Source, State::Serving, None);
        self.images.server.owe();
        let served = self.serve(talk).or_else(|error| match error {
            Error::Died => Err(error),
            _ => self.serve(None),
        });
        match served {
            Ok(Served::All(talk)) => self.end(talk, leaving),
            Ok(Served::Lost(reason)) => self.lost(leaving, &reason),
            Ok(Served::Unknown(reason)) => {
                // It stays fenced, for the next start to find.
                drop(leaving);
                (
                    Outcome::Undecided,
                    Some(format!("{reason}; whether all of its memory is there is not known")),
                )
            }
            Err(error) => {
                drop(leaving);
                (Outcome::Undecided, Some(chain(&error)))
            }
        }
    }

    /// It lived on the destination, and does not any more.
    fn lost(&mut self, leaving: Box<dyn Leaving>, reason: &str) -> End {
        if self
            .source
            .journal
            .record(self.plan.id, Role::Source)
            .is_ok_and(|record| record.state == State::Deciding)
        {
            self.source.journal.note_step(self.plan.id, Role::Source, State::Serving, None);
        }
        let (outcome, ended) = self.end(None, leaving);
        match outcome {
            Outcome::Moved => (Outcome::Lost, Some(format!("it was killed at the destination: {reason}"))),
            _ => (outcome, ended),
        }
    }

    /// It lives on the destination, and needs nothing from here.
    fn end(&mut self, talk: Option<Talk>, leaving: Box<dyn Leaving>) -> End {
        if let Some(frozen) = self.frozen.take() {
            self.account.frozen_ms = Some(milliseconds(frozen.elapsed()));
        }
        let (source, id) = (self.source, self.plan.id);
        self.images.server.stop();
        if source.journal.record(id, Role::Source).is_ok_and(|record| record.state == State::Deciding) {
            source.journal.note_step(id, Role::Source, State::Committed, None);
        }
        let mut leaving = Some(leaving);
        let ended = self.phases.run(Phase::End, self.plan.options.limits.finish, |_| {
            let ended = leaving.take().map_or(Ok(()), Leaving::end);
            ended.map_err(Error::end("end the application that has moved"))
        });
        let ended = match ended {
            Err(Error::Died) => return (Outcome::Undecided, Some(Error::Died.to_string())),
            Err(error) => end_again(source, id, leaving, error),
            Ok(()) => Ok(()),
        };
        let done = ended.and_then(|()| Ok(source.journal.step(id, Role::Source, State::Done, None)?));
        let done = match done {
            Ok(()) => true,
            Err(error) => {
                let reason = chain(&error);
                self.account
                    .warnings
                    .push(format!("{reason}; it stays stopped, and is ended at the next start"));
                false
            }
        };
        if let Err(error) = self.finish(talk, done) {
            if matches!(error, Error::Died) {
                return (Outcome::Undecided, Some(error.to_string()));
            }
            self.account.warnings.push(format!("the destination's report is missing: {}", chain(&error)));
        }
        (Outcome::Moved, None)
    }

    /// The destination's part of the report; then neither needs the other any more.
    fn finish(&mut self, talk: Option<Talk>, done: bool) -> Result<(), Error> {
        let (source, id) = (self.source, self.plan.id);
        let limits = &self.plan.options.limits;
        let account = &mut self.account;
        let finished = self.phases.run(Phase::Finish, limits.finish, |deadline| {
            let Some(mut talk) = talk else {
                return Ok(false);
            };
            let finished = talk.expect("finished", deadline, |message| match message {
                Message::Finished { took, warnings } => Some((took, warnings)),
                _ => None,
            });
            account.control += talk.bytes_sent();
            let (took, warnings) = finished?;
            account.destination = took;
            account
                .warnings
                .extend(warnings.into_iter().map(|warning| format!("at the destination: {warning}")));
            if done {
                talk.say(&Message::Settled, &[], deadline)?;
            }
            Ok(done)
        });
        let told = match &finished {
            Ok(told) => *told,
            Err(Error::Died) => return finished.map(|_| ()),
            Err(_) => false,
        };
        if done && (told || settle(source.dialer, id, limits).is_ok()) {
            source.journal.settle(id, Role::Source)?;
        }
        finished.map(|_| ())
    }

    /// It runs on here. That comes first; then everybody is told.
    pub(super) fn go_back(&mut self, talk: Option<Talk>, leaving: Box<dyn Leaving>, error: &Error) -> End {
        let reason = chain(error);
        if matches!(error, Error::Died) {
            return (Outcome::Undecided, Some(reason));
        }
        tracing::warn!(reason, "the migration is given up");
        self.account.doubt = error.doubt();
        self.images.server.stop();
        let resumed = match self.frozen {
            Some(frozen) => {
                let resumed = leaving.resume();
                self.account.frozen_ms = Some(milliseconds(frozen.elapsed()));
                resumed
            }
            None => {
                drop(leaving);
                Ok(())
            }
        };
        let (journal, id) = (self.source.journal, self.plan.id);
        if journal.record(id, Role::Source).is_ok_and(|record| record.state != State::Preparing) {
            journal.note_step(id, Role::Source, State::Resuming, Some(&reason));
        }
        if let Some(mut talk) = talk {
            talk.channel().refuse(reason.clone(), Deadline::after(LAST_WORD));
            self.account.control += talk.bytes_sent();
        }
        if let Err(error) = resumed {
            let stopped =
                format!("{reason}; and then it could not be made to run on: {}", chain(error.as_ref()));
            tracing::error!(reason = stopped, "the application stands still");
            return (Outcome::Stopped, Some(stopped));
        }
        journal.note_step(id, Role::Source, State::Aborted, Some(&reason));
        self.undo_hooks(&reason);
        (Outcome::Stayed, Some(reason))
    }
}

/// What has moved must end: tries again, as a restarted daemon would.
fn end_again(
    source: &Source<'_>,
    id: MigrationId,
    mut leaving: Option<Box<dyn Leaving>>,
    mut error: Error,
) -> Result<(), Error> {
    for pause in END_AGAIN {
        tracing::error!(migration = %id, reason = chain(&error), "the application that has moved cannot be ended yet");
        thread::sleep(pause);
        let record = source.journal.record(id, Role::Source)?;
        let found = leaving.take().map_or_else(|| source.origin.found(&record), Ok);
        match found.and_then(Leaving::end) {
            Ok(()) => return Ok(()),
            Err(next) => error = Error::end("end the application that has moved")(next),
        }
    }
    Err(error)
}
