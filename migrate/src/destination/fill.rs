//! Rounds of memory, put in their places while they come.

use std::io::{self, Read};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::attend::attend;
use super::run::Arrival;
use super::take_in::waiting_of;
use crate::chunk::CHUNK;
use crate::ends::Place;
use crate::error::Error;
use crate::fetch::Errand;
use crate::files::StreamIn;
use crate::images::{PullReader, Puller};
use crate::phase::Phase;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::{Message, WireError};

/// The most that a round's plan may take: a hundred million spans of memory.
const LARGEST_PLAN: u64 = 512 << 20;
/// The most images of one round, each of which has a thread.
const MOST_IMAGES: usize = 64;

/// A round whose content is on its way.
#[derive(Debug, Default)]
pub(super) struct Filling(Vec<JoinHandle<io::Result<()>>>);

impl Filling {
    /// Waits until all of it is in its place.
    pub(super) fn finish(self) -> Result<(), Error> {
        let mut result = Ok(());
        for thread in self.0 {
            let filled = thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            result = result.and(filled);
        }
        result.map_err(|error| Error::end("put memory in its place")(error.into()))
    }
}

impl Arrival<'_> {
    /// A round while the application runs: all of it is in place when the source hears of it.
    pub(super) fn round(&mut self, talk: &mut Talk, memory: Vec<(String, u64)>) -> Result<(), Error> {
        let limits = &self.session.limits;
        let plan = hear_plan(talk, Deadline::after(limits.files))?;
        let puller = &self.session.puller;
        let waiting = waiting_of(&mut self.waiting)?;
        self.phases.run(Phase::Rounds, limits.files, |deadline| {
            let give_up = |reason: &str| puller.close(reason);
            let aside = attend(talk, &give_up, || {
                let begun = Instant::now();
                let place = waiting.round(&plan).map_err(Error::end("make room for memory"))?;
                let room = begun.elapsed();
                begin(puller, memory, &place)?.finish()?;
                let filled = Instant::now();
                waiting.round_is_there().map_err(Error::end("put memory in order"))?;
                Ok(room + filled.elapsed())
            })?;
            let aside_us = u64::try_from(aside.as_micros()).unwrap_or(u64::MAX);
            talk.say(&Message::RoundDone { aside_us }, &[], deadline)
        })
    }

    /// The last round, which comes while the dump does.
    pub(super) fn last_round(
        &mut self,
        talk: &mut Talk,
        memory: Vec<(String, u64)>,
        owed: Vec<(String, u64)>,
    ) -> Result<Filling, Error> {
        self.owes = !owed.is_empty();
        let (session, id) = (self.session, self.id);
        let limits = &session.limits;
        let puller = &self.session.puller;
        let waiting = waiting_of(&mut self.waiting)?;
        self.phases.run(Phase::LastRound, limits.frozen, |deadline| {
            let plan = hear_plan(talk, deadline)?;
            let place = waiting.round(&plan).map_err(Error::end("make room for memory"))?;
            let filling = begin(puller, memory, &place)?;
            if let [(name, size)] = owed.as_slice() {
                let image = (puller.leave_out(name)?, name.clone(), *size);
                let errand = Errand::new(id, &session.peer, &session.token, image, session.streams(), limits);
                waiting.owed(&errand).map_err(Error::end("have its memory follow"))?;
            } else if !owed.is_empty() {
                return Err(WireError::Malformed("more than one image of owed memory".to_owned()).into());
            }
            Ok(filling)
        })
    }

    /// Whether what was restored is what stands still at the source.
    pub(super) fn verify(&mut self, talk: &mut Talk) -> Result<(), Error> {
        if !self.compares {
            return Ok(());
        }
        let waiting = waiting_of(&mut self.waiting)?;
        self.phases.run(Phase::Verify, self.session.limits.frozen, |deadline| {
            talk.expect("verify", deadline, |message| matches!(message, Message::Verify).then_some(()))?;
            let fingerprint = hear_plan(talk, deadline)?;
            let pages = attend(talk, &|_| {}, || {
                waiting.compare(&fingerprint).map_err(Error::end("accept what was restored"))
            })?;
            talk.say(&Message::Verified { pages }, &[], deadline)
        })
    }
}

fn hear_plan(talk: &mut Talk, deadline: Deadline) -> Result<Vec<u8>, Error> {
    let mut stream = StreamIn::new(talk, deadline);
    let mut plan = Vec::new();
    let read = stream.by_ref().take(LARGEST_PLAN + 1).read_to_end(&mut plan);
    let read = read.map_err(|error| Error::end("hear where memory belongs")(error.into()));
    if plan.len() as u64 > LARGEST_PLAN {
        return Err(WireError::Malformed("a plan of memory that is too large".to_owned()).into());
    }
    stream.finish(read.map(|_| plan))
}

/// Asks for the content, and puts each image of it in its place by a thread of its own.
fn begin(puller: &Arc<Puller>, memory: Vec<(String, u64)>, place: &Arc<dyn Place>) -> Result<Filling, Error> {
    if memory.len() > MOST_IMAGES {
        return Err(WireError::Malformed("a round of too many images".to_owned()).into());
    }
    let names: Vec<String> = memory.iter().map(|(name, _)| name.clone()).collect();
    puller.announce(memory)?;
    let mut filling = Filling::default();
    for name in names {
        let Some(reader) = puller.open(&name) else { continue };
        let place = Arc::clone(place);
        let thread = thread::Builder::new().name("fastmig-fill".to_owned());
        let spawned = thread.spawn(move || fill(reader, &name, place.as_ref()));
        filling.0.push(spawned.map_err(|error| Error::end("start a thread")(error.into()))?);
    }
    Ok(filling)
}

fn fill(mut reader: PullReader, name: &str, place: &dyn Place) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        place.write(name, offset, &chunk[..read])?;
        offset += read as u64;
    }
}
