//! An accepted connection: a new migration, one of its data connections, or a question.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{run, Destination};
use crate::cancel::Cancel;
use crate::error::{chain, Error};
use crate::id::MigrationId;
use crate::images::Puller;
use crate::journal::{JournalError, Record, Role};
use crate::options::{Limits, Wanted};
use crate::report::Report;
use crate::source::counter::Here;
use crate::state::State;
use crate::transport::{Connection, Deadline};
use crate::wire::{Channel, Hello, Message, Purpose, Received, Verdict, WireError};

/// The most that is waited for a peer that was refused to close.
const GOODBYE: Duration = Duration::from_secs(2);
/// Or not yet, by a daemon that has just started.
const NOTHING_OWED: &str = "no memory is owed to you here";
/// How often a migration that is given up is looked for.
const LOOK_UP: Duration = Duration::from_millis(100);

/// What a connection was.
#[derive(Debug)]
pub enum Served {
    /// A migration, which has ended.
    Migration(Box<Report>),
    /// A data connection, which has its own thread now.
    Data,
    /// A question, which was answered.
    Answered,
    /// Nothing: refused, and why.
    Refused(String),
}

/// The most that a source may let its application stand still.
const LONGEST_FREEZE: Duration = Duration::from_secs(3600);
/// The most that an application waits for a source that is lost.
const LONGEST_APART: Duration = Duration::from_secs(24 * 3600);
/// How much longer than the source the destination waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A migration that arrives.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: String,
    pub(super) wanted: Wanted,
    /// Ours, but for what the source says of the freeze.
    pub(super) limits: Limits,
    /// By which its data connections are known.
    pub(super) token: String,
    pub(super) cancel: Cancel,
    pub(super) puller: Arc<Puller>,
    lanes: Mutex<HashSet<u32>>,
}

impl Session {
    /// How many data connections it had.
    pub(super) fn streams(&self) -> u32 {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(lanes.len()).unwrap_or(u32::MAX)
    }
}

/// A session among those of the destination, until dropped.
pub(super) struct Registered<'a> {
    destination: &'a Destination,
    id: MigrationId,
    pub(super) session: Arc<Session>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.session.puller.close("the migration has ended");
        sessions(self.destination).remove(&self.id);
    }
}

pub(super) fn serve(destination: &Destination, connection: Box<dyn Connection>, peer: &str) -> Served {
    let deadline = Deadline::after(destination.limits.connect);
    let (channel, protocol, first) = match Channel::accept(connection, deadline) {
        Ok(accepted) => accepted,
        Err(error) => {
            let reason = chain(&error);
            tracing::warn!(peer, reason, "a connection is refused");
            return Served::Refused(reason);
        }
    };
    let Received { message: Message::Hello(Hello { purpose, software, .. }), .. } = first else {
        return refuse(channel, peer, "the first message must be hello");
    };
    tracing::debug!(peer, software, protocol, "a connection");
    let fetches = matches!(purpose, Purpose::Fetch { .. } | Purpose::AllIsHere { .. });
    if fetches != channel.is_source() {
        return refuse(channel, peer, "that is for the other side to ask");
    }
    match purpose {
        Purpose::Fetch { token } => let_fetch(destination, channel, peer, &token, protocol),
        Purpose::AllIsHere { token, bytes, faults, milliseconds } => {
            let here = Here { bytes, faults, milliseconds };
            hear_end(destination, channel, peer, &token, here)
        }
        Purpose::Migrate { wanted, frozen_ms, apart_ms } => {
            let [frozen, apart] = [frozen_ms, apart_ms].map(Duration::from_millis);
            let limits = limits_for(&destination.limits, frozen, apart);
            migrate(destination, channel, peer, wanted, limits, protocol)
        }
        Purpose::Data { token } => attach(destination, channel, peer, &token, protocol),
        Purpose::Ask => answer(destination, channel, peer),
        Purpose::Settle => settle(destination, channel, peer),
        Purpose::Gone => gone(destination, channel, peer),
    }
}

/// Gives all up that is not decided.
pub(super) fn leave(destination: &Destination) {
    sessions(destination).values().for_each(|session| session.cancel.leave());
}

fn sessions(
    destination: &Destination,
) -> MutexGuard<'_, std::collections::HashMap<MigrationId, Arc<Session>>> {
    destination.sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(mut channel: Channel, peer: &str, reason: &str) -> Served {
    tracing::warn!(peer, reason, "a connection is refused");
    channel.refuse(reason.to_owned(), Deadline::after(GOODBYE));
    channel.drain(Deadline::after(GOODBYE));
    Served::Refused(reason.to_owned())
}

fn migrate(
    destination: &Destination,
    mut channel: Channel,
    peer: &str,
    wanted: Wanted,
    limits: Limits,
    protocol: u32,
) -> Served {
    match register(destination, &mut channel, peer, wanted, limits) {
        Ok(registered) => Served::Migration(Box::new(run::run(destination, registered, channel, protocol))),
        Err(error) => refuse(channel, peer, &chain(&error)),
    }
}

/// The freeze is the source's, and so is its limit; and how long it may be lost is for who asked for the migration to say.
fn limits_for(ours: &Limits, frozen: Duration, apart: Duration) -> Limits {
    let frozen = frozen.min(LONGEST_FREEZE);
    Limits {
        frozen,
        apart: apart.min(LONGEST_APART),
        held: ours.held.max(frozen.saturating_add(PATIENCE)),
        ..ours.clone()
    }
}

/// Takes a migration among those that arrive. One into the same container by the same host is given up: that host has given
/// it up as well, but its connection is silent.
fn register<'a>(
    destination: &'a Destination,
    channel: &mut Channel,
    peer: &str,
    wanted: Wanted,
    limits: Limits,
) -> Result<Registered<'a>, Error> {
    let id = channel.id();
    give_up_former(destination, channel, peer, &wanted)?;
    let token = MigrationId::random().map_err(|error| Error::end("make a secret")(error.into()))?.to_string();
    let bounds = destination.bounds;
    let session = Arc::new(Session {
        peer: peer.to_owned(),
        wanted,
        limits,
        token,
        cancel: Cancel::default(),
        puller: Arc::new(Puller::new(bounds.window, destination.limits.silence)),
        lanes: Mutex::default(),
    });
    let mut sessions = sessions(destination);
    if sessions.len() >= bounds.arrivals {
        return Err(Error::Busy(format!(
            "{} migrations arrive here already, which is the most that is allowed; try again later",
            bounds.arrivals
        )));
    }
    if sessions.contains_key(&id) {
        return Err(JournalError::Known(id).into());
    }
    sessions.insert(id, Arc::clone(&session));
    drop(sessions);
    Ok(Registered { destination, id, session })
}

fn give_up_former(
    destination: &Destination,
    channel: &mut Channel,
    peer: &str,
    wanted: &Wanted,
) -> Result<(), Error> {
    let deadline = Deadline::after(destination.limits.prepare);
    loop {
        let former = sessions(destination).values().find_map(|session| {
            let same = session.peer == peer && session.wanted.container == wanted.container;
            same.then(|| Arc::clone(session))
        });
        let Some(former) = former else {
            return Ok(());
        };
        if deadline.is_over() {
            return Err(Error::Busy(
                "another migration into this container is still being given up".to_owned(),
            ));
        }
        channel.send(&Message::Working, &[], Deadline::after(destination.limits.connect))?;
        former.cancel.cancel();
        former.puller.close("the source has begun anew");
        drop(former);
        thread::sleep(LOOK_UP);
    }
}

fn attach(destination: &Destination, mut channel: Channel, peer: &str, token: &str, protocol: u32) -> Served {
    let session = sessions(destination).get(&channel.id()).cloned();
    let Some(session) = session.filter(|session| session.peer == peer && session.token == token) else {
        return refuse(channel, peer, "this data connection belongs to no migration");
    };
    let lane = channel.lane();
    let first = session.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(lane);
    let new = (1..=destination.bounds.streams).contains(&lane) && first;
    if !new {
        return refuse(channel, peer, "too many data connections, or the same one twice");
    }
    let welcome = Message::Welcome { protocol, token: None, lacks_image: false };
    let welcomed = channel.send(&welcome, &[], Deadline::after(destination.limits.connect));
    let attached = welcomed.map_err(Error::from).and_then(|()| {
        session.puller.attach(channel).map_err(|error| Error::end("start a thread")(error.into()))
    });
    match attached {
        Ok(()) => Served::Data,
        Err(error) => Served::Refused(chain(&error)),
    }
}

/// How was it decided? Nothing decided becomes aborted by the question.
fn answer(destination: &Destination, mut channel: Channel, peer: &str) -> Served {
    let verdict = match destination.journal.decide(channel.id(), peer) {
        Ok(State::Committed | State::Released) => Verdict::Committed,
        Ok(State::Filling) => Verdict::Owing,
        Ok(State::Lost) => Verdict::Lost,
        Ok(_) => Verdict::Aborted,
        Err(error) => return refuse(channel, peer, &chain(&error)),
    };
    if verdict == Verdict::Aborted {
        if let Some(session) = sessions(destination).get(&channel.id()) {
            session.cancel.cancel();
            session.puller.close("the source has asked for the decision");
        }
    }
    finish(destination, &mut channel, &Message::Decided(verdict))
}

/// The source says that what it owes does not come any more.
fn gone(destination: &Destination, mut channel: Channel, peer: &str) -> Served {
    let record = destination.journal.record(channel.id(), Role::Destination);
    let owed = |record: &Record| record.peer == peer && record.state == State::Filling;
    if let Some(record) = record.ok().filter(owed) {
        if let Err(error) = destination.host.forsaken(&record, "the source has lost what it owed") {
            return refuse(channel, peer, &chain(error.as_ref()));
        }
    }
    finish(destination, &mut channel, &Message::Done)
}

/// Whom this host owes memory asks for it on this connection.
fn let_fetch(
    destination: &Destination,
    mut channel: Channel,
    peer: &str,
    token: &str,
    protocol: u32,
) -> Served {
    let Some(desk) = destination.counter.find(channel.id(), peer, token) else {
        return refuse(channel, peer, NOTHING_OWED);
    };
    let welcome = Message::Welcome { protocol, token: None, lacks_image: false };
    let welcomed = channel.send(&welcome, &[], Deadline::after(destination.limits.connect));
    if let Err(error) = welcomed {
        return Served::Refused(chain(&error));
    }
    match desk.come(channel) {
        Ok(()) => Served::Data,
        Err(channel) => refuse(*channel, peer, "too many connections for what is owed"),
    }
}

/// What this host owed is all there.
fn hear_end(destination: &Destination, mut channel: Channel, peer: &str, token: &str, here: Here) -> Served {
    let Some(desk) = destination.counter.find(channel.id(), peer, token) else {
        return refuse(channel, peer, NOTHING_OWED);
    };
    desk.note_here(here);
    finish(destination, &mut channel, &Message::Done)
}

fn settle(destination: &Destination, mut channel: Channel, peer: &str) -> Served {
    let id = channel.id();
    let record = destination.journal.record(id, Role::Destination);
    let settled = match record {
        Ok(record) if record.peer == peer => destination.journal.settle(id, Role::Destination),
        // Forgotten already, or never here.
        Ok(_) | Err(JournalError::Unknown(_)) => Ok(()),
        Err(error) => Err(error),
    };
    match settled {
        Ok(()) => finish(destination, &mut channel, &Message::Done),
        Err(error) => refuse(channel, peer, &chain(&error)),
    }
}

fn finish(destination: &Destination, channel: &mut Channel, message: &Message) -> Served {
    let sent: Result<(), WireError> = channel.send(message, &[], Deadline::after(destination.limits.connect));
    match sent {
        Ok(()) => Served::Answered,
        Err(error) => Served::Refused(chain(&error)),
    }
}
