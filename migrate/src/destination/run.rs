//! All phases of an arrival, and the way back from each.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::attend::attend;
use super::serve::{Registered, Session};
use super::{Destination, Placed};
use crate::ends::{Files, Waiting};
use crate::error::{chain, Error};
use crate::files::StreamIn;
use crate::hooks::{facts, Stage};
use crate::id::MigrationId;
use crate::images::{Arrived, Store};
use crate::journal::{Record, Role};
use crate::options::{Compression, Strategy};
use crate::phase::Phase;
use crate::phases::Phases;
use crate::report::{Bytes, Outcome, Report};
use crate::state::State;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::{Channel, Message, Received, WireError};

/// The most that is waited for a source that was refused to close.
const GOODBYE: Duration = Duration::from_secs(2);
/// Pauses between tries to release what must run.
const RELEASE_AGAIN: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

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
        talk.channel().refuse(reason, Deadline::after(GOODBYE));
        talk.channel().drain(Deadline::after(GOODBYE));
    }
    report
}

type End = (Outcome, Option<String>);

/// A migration under way.
struct Arrival<'a> {
    destination: &'a Destination,
    session: &'a Session,
    id: MigrationId,
    phases: Phases<'a>,
    store: Arc<Store>,
    waiting: Option<Box<dyn Waiting>>,
    warnings: Vec<String>,
    files: Files,
    file_rounds: u32,
    /// The first hook was called.
    hooked: bool,
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

    /// Everything up to the commit, which is on disk then.
    fn take_in(&mut self, talk: &mut Talk, protocol: u32) -> Result<(), Error> {
        self.welcome(talk, protocol)?;
        self.prepare(talk)?;
        self.files_and_ready(talk)?;
        let dumped = self.images(talk)?;
        self.prepare_restore(talk)?;
        self.restore(talk, &dumped)?;
        self.wait_for_commit(talk)
    }

    /// Both agree, and the image comes when it is not here.
    fn welcome(&mut self, talk: &mut Talk, protocol: u32) -> Result<(), Error> {
        let (destination, session, limits) = (self.destination, self.session, &self.session.limits);
        let wanted = &session.wanted;
        let lacks_image = self.phases.run(Phase::Connect, limits.prepare, |deadline| {
            let lacks_image = attend(talk, &|_| {}, || match wanted.create {
                None => Ok(false),
                Some(_) => destination.host.lacks_image(wanted).map_err(Error::end("make the container")),
            })?;
            let welcome = Message::Welcome { protocol, token: Some(session.token.clone()), lacks_image };
            talk.say(&welcome, &[], deadline)?;
            Ok(lacks_image)
        })?;
        if !lacks_image {
            return Ok(());
        }
        self.phases.run(Phase::Image, limits.image, |deadline| {
            let mut content = StreamIn::new(talk, deadline);
            let received = destination.host.receive_image(wanted, &mut content);
            content.finish(received.map_err(Error::end("take the container's image in")))?;
            talk.say(&Message::Done, &[], deadline)
        })
    }

    /// The container is found or made, and checked.
    fn prepare(&mut self, talk: &mut Talk) -> Result<(), Error> {
        let (destination, session, id) = (self.destination, self.session, self.id);
        let waiting = &mut self.waiting;
        self.phases.run(Phase::Prepare, session.limits.prepare, |deadline| {
            let passport = talk.expect("passport", deadline, |message| match message {
                Message::Passport { passport } => Some(passport),
                _ => None,
            })?;
            attend(talk, &|_| {}, || {
                let placed = destination.host.waiting(id, &session.peer, &session.wanted);
                let Placed { waiting: found, facts } =
                    placed.map_err(Error::end("take the application in"))?;
                // From here on it is given up by its owner, whatever comes.
                let found = waiting.insert(found);
                destination.journal.locate(id, Role::Destination, facts)?;
                found.check(&passport).map_err(Error::end("take the application in"))
            })?;
            talk.say(&Message::Done, &[], deadline)
        })
    }

    /// Rounds of files, and then everything is started.
    fn files_and_ready(&mut self, talk: &mut Talk) -> Result<(), Error> {
        let limits = &self.session.limits;
        // Before the next round, or the end of them, the source may have much to pack.
        let deadline = Deadline::after(limits.files);
        loop {
            match talk.hear(deadline)?.message {
                Message::Files { frozen: false } => self.unpack(talk, Phase::Files, limits.files)?,
                Message::Ready => break,
                other => return Err(unexpected(&other, "files or ready")),
            }
        }
        let waiting = waiting_of(&mut self.waiting)?;
        self.phases.run(Phase::Ready, limits.ready, |deadline| {
            attend(talk, &|_| {}, || waiting.ready().map_err(Error::end("start the restore")))?;
            talk.say(&Message::Done, &[], deadline)
        })
    }

    fn unpack(&mut self, talk: &mut Talk, phase: Phase, limit: Duration) -> Result<(), Error> {
        let waiting = waiting_of(&mut self.waiting)?;
        let files = self.phases.run(phase, limit, |deadline| {
            let mut archive = StreamIn::new(talk, deadline);
            let unpacked = waiting.unpack_files(&mut archive);
            let files = archive.finish(unpacked.map_err(Error::end("put files back")))?;
            talk.say(&Message::FilesDone { entries: files.entries, bytes: files.bytes }, &[], deadline)?;
            Ok(files)
        })?;
        self.file_rounds += 1;
        self.files.entries += files.entries;
        self.files.bytes += files.bytes;
        Ok(())
    }

    /// The application stands still: the last files, and its images.
    fn images(&mut self, talk: &mut Talk) -> Result<Value, Error> {
        let limits = &self.session.limits;
        // The source's hooks run before the first of them.
        let mut next = talk.hear(Deadline::after(limits.held + limits.frozen))?;
        if matches!(next.message, Message::Files { frozen: true }) {
            self.unpack(talk, Phase::LastFiles, limits.frozen)?;
            next = talk.hear(Deadline::after(limits.frozen))?;
        }
        let (store, puller) = (&self.store, &self.session.puller);
        self.phases.run(Phase::Dump, limits.frozen, |deadline| loop {
            let Received { message, payload } = next;
            match message {
                Message::Image { name, large, last } => store.put(&name, large, last, &payload)?,
                Message::Dumped { dumped, memory } => {
                    store.check_whole()?;
                    puller.announce(memory)?;
                    return Ok(dumped);
                }
                other => return Err(unexpected(&other, "an image")),
            }
            next = talk.hear(deadline)?;
        })
    }

    fn prepare_restore(&mut self, talk: &mut Talk) -> Result<(), Error> {
        let facts = self.facts(None);
        self.hooked = true;
        let hooks = &self.destination.hooks;
        let stage = Stage::PreRestore;
        self.phases.run(Phase::PreRestore, self.session.limits.frozen, |_| {
            attend(talk, &|_| {}, || hooks.run(stage, &facts).map_err(|source| Error::Hook { stage, source }))
        })
    }

    fn restore(&mut self, talk: &mut Talk, dumped: &Value) -> Result<(), Error> {
        let (destination, session, id) = (self.destination, self.session, self.id);
        let waiting = waiting_of(&mut self.waiting)?;
        let images = Arrived { store: Arc::clone(&self.store), puller: Arc::clone(&session.puller) };
        self.phases.run(Phase::Restore, session.limits.frozen, |deadline| {
            let give_up = |reason: &str| session.puller.close(reason);
            attend(talk, &give_up, || {
                waiting.restore(dumped, Arc::new(images)).map_err(Error::end("restore the application"))
            })?;
            tracing::debug!(most_bytes = session.puller.most_open(), "all memory is here");
            session.puller.close("all memory is here");
            destination.journal.step(id, Role::Destination, State::Held, None)?;
            talk.say(&Message::Held, &[], deadline)
        })
    }

    /// The source's commit makes it ours: on disk, before anything of it runs.
    fn wait_for_commit(&mut self, talk: &mut Talk) -> Result<(), Error> {
        let (destination, id) = (self.destination, self.id);
        self.phases.run(Phase::Commit, self.session.limits.held, |deadline| {
            talk.expect("commit", deadline, |message| matches!(message, Message::Commit).then_some(()))?;
            destination.journal.step(id, Role::Destination, State::Committed, None)?;
            Ok(())
        })
    }

    /// It is decided; only forward from here.
    fn run_it(&mut self, talk: &mut Talk) -> End {
        talk.decide();
        match self.release() {
            Ok(trouble) => self.finish(talk, trouble),
            Err(error) => (Outcome::Undecided, Some(chain(&error))),
        }
    }

    /// Lets it run. Returns what went wrong; an error only when a test lets the process die.
    fn release(&mut self) -> Result<Option<String>, Error> {
        let (destination, id) = (self.destination, self.id);
        let points = self.phases.points();
        let mut waiting = self.waiting.take();
        let released = self.phases.run(Phase::Release, self.session.limits.finish, |_| {
            points.at("committed")?;
            let released =
                waiting.take().map_or_else(|| Err("there is no container".into()), Waiting::release);
            released.map_err(Error::end("let it run"))?;
            points.at("released")
        });
        let released = match released {
            Err(Error::Died) => return Err(Error::Died),
            Err(error) => release_again(destination, id, waiting, error),
            Ok(()) => Ok(()),
        };
        if let Err(error) = released {
            return Ok(Some(format!("{}; this is tried again at the daemon's next start", chain(&error))));
        }
        destination.journal.note_step(id, Role::Destination, State::Released, None);
        Ok(None)
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

    fn settle(&mut self, talk: &mut Talk) -> Result<(), Error> {
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
    fn go_back(&mut self, talk: &mut Talk, error: &Error) -> End {
        let reason = chain(error);
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
            Ok(record) if record.state == State::Committed => return self.run_it(talk),
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

    fn after_restore(&mut self) -> Result<(), Error> {
        let facts = self.facts(None);
        let hooks = &self.destination.hooks;
        let stage = Stage::PostRestore;
        self.phases.run(Phase::PostRestore, self.session.limits.finish, |_| {
            hooks.run(stage, &facts).map_err(|source| Error::Hook { stage, source })
        })
    }

    fn undo_hooks(&mut self, reason: &str) {
        if !self.hooked {
            return;
        }
        if let Err(error) = self.destination.hooks.run(Stage::Aborted, &self.facts(Some(reason))) {
            self.warnings.push(format!("an aborted hook failed: {}", chain(error.as_ref())));
        }
    }

    fn facts(&self, reason: Option<&str>) -> Value {
        let record = self.destination.journal.record(self.id, Role::Destination);
        record.map_or(Value::Null, |record| facts(&record, reason))
    }

    fn report(self, outcome: Outcome, reason: Option<String>) -> Report {
        Report {
            id: self.id,
            container: self.session.wanted.container.clone(),
            peer: self.session.peer.clone(),
            outcome,
            reason,
            warnings: self.warnings,
            strategy: Strategy::default(),
            compression: Compression::default(),
            chunks: [0; 3],
            streams: self.session.streams(),
            file_rounds: self.file_rounds,
            files: self.files.entries,
            bytes: Bytes { files: self.files.bytes, ..Bytes::default() },
            source: Vec::new(),
            destination: self.phases.took(),
            frozen_ms: None,
            total_ms: self.phases.total(),
        }
    }
}

fn waiting_of(waiting: &mut Option<Box<dyn Waiting>>) -> Result<&mut Box<dyn Waiting>, Error> {
    waiting.as_mut().ok_or_else(|| Error::end("go on")("there is no container".into()))
}

fn unexpected(message: &Message, expected: &'static str) -> Error {
    WireError::Unexpected { got: message.kind(), expected }.into()
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
            Ok(()) => return Ok(()),
            Err(next) => error = Error::end("let it run")(next),
        }
    }
    Err(error)
}
