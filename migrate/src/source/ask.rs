//! The source asks the destination how it decided, over connections of their own.

use std::thread;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::error::{chain, Error};
use crate::id::MigrationId;
use crate::options::Limits;
use crate::progress::{Event, Progress};
use crate::talk::Talk;
use crate::transport::{Deadline, Dialer};
use crate::wire::{Channel, Hello, Message, Purpose, Verdict, SPOKEN};

/// The number of connections that are not of a migration's own.
const LANE: u32 = u32::MAX;
/// The first pause; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often somebody who waits looks up.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Asks until there is an answer, the limit is over, or it is told to leave.
pub(crate) fn ask(
    dialer: &dyn Dialer,
    id: MigrationId,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Option<Verdict> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    for attempts in 1.. {
        let reason = match ask_once(dialer, id, limits) {
            Ok(verdict) => return Some(verdict),
            Err(error) => chain(&error),
        };
        tracing::warn!(migration = %id, attempts, reason, "the destination's decision is not known; asking again");
        progress.event(Event::Asking { attempts, reason });
        if limits.ask.is_some_and(|limit| begun.elapsed() + pause > limit) || !rest(pause, cancel) {
            break;
        }
        pause = (pause * 2).min(limits.ask_again);
    }
    None
}

/// Tells the destination that what it is owed is gone.
pub(crate) fn say_gone(dialer: &dyn Dialer, id: MigrationId, limits: &Limits) -> Result<(), Error> {
    let (mut talk, deadline) = call(dialer, id, limits, Purpose::Gone)?;
    talk.expect_done(deadline)
}

/// Tells the destination that its record is needed no more.
pub(crate) fn settle(dialer: &dyn Dialer, id: MigrationId, limits: &Limits) -> Result<(), Error> {
    let (mut talk, deadline) = call(dialer, id, limits, Purpose::Settle)?;
    talk.expect_done(deadline)
}

pub(crate) fn ask_once(dialer: &dyn Dialer, id: MigrationId, limits: &Limits) -> Result<Verdict, Error> {
    let (mut talk, deadline) = call(dialer, id, limits, Purpose::Ask)?;
    talk.expect("decided", deadline, |message| match message {
        Message::Decided(verdict) => Some(verdict),
        _ => None,
    })
}

fn call(
    dialer: &dyn Dialer,
    id: MigrationId,
    limits: &Limits,
    purpose: Purpose,
) -> Result<(Talk, Deadline), Error> {
    let connection = dialer.dial().map_err(Error::Dial)?;
    let deadline = Deadline::after(limits.connect);
    let mut talk = Talk::asking(Channel::open(connection, id, LANE), Cancel::default(), limits.connect);
    talk.say(&hello(purpose), &[], deadline)?;
    Ok((talk, deadline))
}

/// The first message of a connection.
pub(crate) fn hello(purpose: Purpose) -> Message {
    let software = concat!("FastMig ", env!("CARGO_PKG_VERSION")).to_owned();
    Message::Hello(Hello { speaks: SPOKEN, software, purpose })
}

/// Pauses, unless it is to leave.
pub(crate) fn rest(pause: Duration, cancel: &Cancel) -> bool {
    let over = Deadline::after(pause);
    while let Some(left) = over.left() {
        if cancel.is_leaving() {
            return false;
        }
        thread::sleep(left.min(LOOK_UP));
    }
    !cancel.is_leaving()
}
