//! What follows from the decision on the destination.

use std::thread;
use std::time::Duration;

use super::run::{Arrival, End};
use super::Destination;
use crate::ends::{Owing, Waiting};
use crate::error::{chain, Error};
use crate::hooks::Stage;
use crate::id::MigrationId;
use crate::journal::{Record, Role};
use crate::phase::Phase;
use crate::report::Outcome;
use crate::state::State;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::Message;

/// Pauses between tries to release what must run.
const RELEASE_AGAIN: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

impl Arrival<'_> {
    /// It is decided; only forward from here.
    pub(super) fn run_it(&mut self, talk: &mut Talk) -> End {
        talk.decide();
        match self.release() {
            Ok((trouble, Some(owing))) => self.finish_owing(talk, trouble, owing),
            Ok((trouble, None)) => self.finish(talk, trouble),
            Err(error) if self.owes && !matches!(error, Error::Died) => {
                self.lost_unreleased(talk, &chain(&error))
            }
            Err(error) => (Outcome::Undecided, Some(chain(&error))),
        }
    }

    /// Lets it run. Returns what went wrong; an error only when a test lets the process die.
    #[allow(clippy::type_complexity, reason = "the trouble, and what is owed")]
    fn release(&mut self) -> Result<(Option<String>, Option<Box<dyn Owing>>), Error> {
        let (destination, id) = (self.destination, self.id);
        let points = self.phases.points();
        let mut waiting = self.waiting.take();
        let mut owed = None;
        let released = self.phases.run(Phase::Release, self.session.limits.finish, |_| {
            points.at("committed")?;
            let released =
                waiting.take().map_or_else(|| Err("there is no container".into()), Waiting::release);
            owed = released.map_err(Error::end("let it run"))?;
            points.at("released")
        });
        let released = match (released, owed) {
            (Err(Error::Died), owed) => {
                // Nobody would drop it.
                std::mem::forget(owed);
                Err(Error::Died)
            }
            (Err(error), Some(owed)) => {
                self.warnings.push(format!("it runs nevertheless: {}", chain(&error)));
                Ok(Some(owed))
            }
            (released, owed) => released.map(|()| owed),
        };
        let released = match released {
            Err(Error::Died) => return Err(Error::Died),
            // What is owed to it is fetched by nobody else.
            Err(error) if self.owes => return Err(error),
            Err(error) => release_again(destination, id, waiting, error).map(|()| None),
            Ok(owing) => Ok(owing),
        };
        match released {
            Err(error) => {
                Ok((Some(format!("{}; this is tried again at the daemon's next start", chain(&error))), None))
            }
            Ok(Some(owing)) => Ok((None, Some(owing))),
            Ok(None) => {
                destination.journal.note_step(id, Role::Destination, State::Released, None);
                Ok((None, None))
            }
        }
    }

    /// Tells the source, and then the operator's commands.
    fn finish(&mut self, talk: &mut Talk, trouble: Option<String>) -> End {
        let limits = &self.session.limits;
        let runs = trouble.is_none();
        self.warnings.extend(trouble.clone());
        let answered = talk.say(&Message::Committed { trouble }, &[], Deadline::after(limits.connect));
        if runs {
            if let Err(error) = self.after_restore() {
                if matches!(error, Error::Died) {
                    return (Outcome::Undecided, Some(chain(&error)));
                }
                self.warnings.push(chain(&error));
            }
        }
        if let Err(error) = answered.and_then(|()| self.settle(talk)) {
            // The source asks when it needs to know.
            tracing::info!(reason = chain(&error), "the source does not hear the end");
        }
        (Outcome::Moved, None)
    }

    pub(super) fn settle(&mut self, talk: &mut Talk) -> Result<(), Error> {
        let (journal, id) = (&self.destination.journal, self.id);
        let finished = Message::Finished { took: self.phases.took(), warnings: self.warnings.clone() };
        self.phases.run(Phase::Finish, self.session.limits.finish, |deadline| {
            talk.say(&finished, &[], deadline)?;
            talk.expect("settled", deadline, |message| matches!(message, Message::Settled).then_some(()))?;
            journal.settle(id, Role::Destination)?;
            Ok(())
        })
    }

    /// It stays on the source. Whether the commit is on its way does not matter any more once that is on disk.
    pub(super) fn go_back(&mut self, talk: &mut Talk, error: &Error) -> End {
        let reason = chain(error);
        self.doubt = error.doubt();
        if matches!(error, Error::Died) {
            return (Outcome::Undecided, Some(reason));
        }
        let (journal, id) = (&self.destination.journal, self.id);
        self.session.puller.close(&reason);
        let undecided =
            |record: &Record| matches!(record.state, State::Preparing | State::Held | State::Abandoning);
        match journal.record(id, Role::Destination) {
            Ok(record) if undecided(&record) => {}
            // It is decided, and there is only one way from there.
            Ok(record) if matches!(record.state, State::Committed | State::Filling) => {
                return self.run_it(talk)
            }
            // The commit may be on disk: neither side may run before that is known.
            Ok(_) | Err(_) => return self.stand_still(&reason),
        }
        tracing::warn!(reason, "the migration is given up");
        if journal.record(id, Role::Destination).is_ok_and(|record| record.state != State::Abandoning) {
            journal.note_step(id, Role::Destination, State::Abandoning, Some(&reason));
        }
        let abandoned = self.waiting.take().map_or(Ok(()), |waiting| waiting.abandon());
        match abandoned {
            Ok(()) => journal.note_step(id, Role::Destination, State::Abandoned, None),
            Err(error) => self.warnings.push(format!(
                "the container is not in standby again: {}; this is tried again at the daemon's next start",
                chain(error.as_ref())
            )),
        }
        self.undo_hooks(&reason);
        (Outcome::Stayed, Some(reason))
    }

    fn stand_still(&mut self, reason: &str) -> End {
        tracing::error!(reason, "whether the commit is on disk is not known: the application is held");
        // Not abandoned: dropping it would be that.
        std::mem::forget(self.waiting.take());
        (Outcome::Undecided, Some(reason.to_owned()))
    }

    pub(super) fn after_restore(&mut self) -> Result<(), Error> {
        let facts = self.facts(None);
        let hooks = &self.destination.hooks;
        let stage = Stage::PostRestore;
        self.phases.run(Phase::PostRestore, self.session.limits.finish, |_| {
            hooks.run(stage, &facts).map_err(|source| Error::Hook { stage, source })
        })
    }
}

/// What is committed must run: tries again, as a restarted daemon would.
fn release_again(
    destination: &Destination,
    id: MigrationId,
    mut waiting: Option<Box<dyn Waiting>>,
    mut error: Error,
) -> Result<(), Error> {
    for pause in RELEASE_AGAIN {
        tracing::error!(migration = %id, reason = chain(&error), "the application cannot be let run yet");
        thread::sleep(pause);
        let record = destination.journal.record(id, Role::Destination)?;
        let found = waiting.take().map_or_else(|| destination.host.found(&record), Ok);
        match found.and_then(Waiting::release) {
            Ok(_) => return Ok(()),
            Err(next) => error = Error::end("let it run")(next),
        }
    }
    Err(error)
}
