//! Everything up to the commit.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::attend::attend;
use super::run::Arrival;
use super::Placed;
use crate::ends::Waiting;
use crate::error::Error;
use crate::files::StreamIn;
use crate::hooks::Stage;
use crate::images::Arrived;
use crate::journal::Role;
use crate::phase::Phase;
use crate::state::State;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::{Message, Received, WireError};

impl Arrival<'_> {
    /// Everything up to the commit, which is on disk then.
    pub(super) fn take_in(&mut self, talk: &mut Talk, protocol: u32) -> Result<(), Error> {
        self.welcome(talk, protocol)?;
        self.prepare(talk)?;
        self.files_and_ready(talk)?;
        let next = self.rounds(talk)?;
        let dumped = self.images(talk, next)?;
        self.prepare_restore(talk)?;
        self.restore(talk, &dumped)?;
        self.verify(talk)?;
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

    /// Rounds of memory; the first message after them.
    fn rounds(&mut self, talk: &mut Talk) -> Result<Received, Error> {
        // Before the next round the source may have hooks to run.
        let patience = self.session.limits.held + self.session.limits.files;
        loop {
            let waiting = waiting_of(&mut self.waiting)?;
            // Or the source would hear only when it asks for something: perhaps when the application stands still.
            let watch = || waiting.still_waits().map_err(Error::end("wait with the restore"));
            let received = talk.hear_while(Deadline::after(patience), watch)?;
            match received.message {
                Message::Round { last: false, memory, owed } if owed.is_empty() => {
                    self.round(talk, memory)?;
                }
                _ => return Ok(received),
            }
        }
    }

    /// Rounds of files, and then everything is started.
    fn files_and_ready(&mut self, talk: &mut Talk) -> Result<(), Error> {
        let limits = &self.session.limits;
        // Before the next round, or the end of them, the source may have much to pack.
        let deadline = Deadline::after(limits.files);
        loop {
            match talk.hear(deadline)?.message {
                Message::Files { frozen: false } => self.unpack(talk, Phase::Files, limits.files)?,
                Message::Ready { strategy, verify } => {
                    break (self.strategy, self.compares) = (strategy, verify)
                }
                other => return Err(unexpected(&other, "files or ready")),
            }
        }
        let strategy = self.strategy;
        let waiting = waiting_of(&mut self.waiting)?;
        self.phases.run(Phase::Ready, limits.ready, |deadline| {
            attend(talk, &|_| {}, || waiting.ready(strategy).map_err(Error::end("start the restore")))?;
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

    /// The application stands still: the last memory, the last files, and its images.
    fn images(&mut self, talk: &mut Talk, mut next: Received) -> Result<Value, Error> {
        let limits = &self.session.limits;
        if let Message::Round { last: true, memory, owed } = next.message {
            self.filling = self.last_round(talk, memory, owed)?;
            next = talk.hear(Deadline::after(limits.frozen))?;
        }
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
        let filling = std::mem::take(&mut self.filling);
        let images = Arrived { store: Arc::clone(&self.store), puller: Arc::clone(&session.puller) };
        self.phases.run(Phase::Restore, session.limits.frozen, |deadline| {
            let give_up = |reason: &str| session.puller.close(reason);
            attend(talk, &give_up, || {
                filling.finish()?;
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
        let next = if self.owes { State::Filling } else { State::Committed };
        let waiting = waiting_of(&mut self.waiting)?;
        self.phases.run(Phase::Commit, self.session.limits.held, |deadline| {
            talk.expect("commit", deadline, |message| matches!(message, Message::Commit).then_some(()))?;
            waiting.verify().map_err(Error::end("keep the application for its release"))?;
            destination.journal.step(id, Role::Destination, next, None)?;
            Ok(())
        })
    }
}

pub(super) fn waiting_of(waiting: &mut Option<Box<dyn Waiting>>) -> Result<&mut Box<dyn Waiting>, Error> {
    waiting.as_mut().ok_or_else(|| Error::end("go on")("there is no container".into()))
}

fn unexpected(message: &Message, expected: &'static str) -> Error {
    WireError::Unexpected { got: message.kind(), expected }.into()
}
