//! What is owed after the commit. The application runs on the destination; here it stays stopped, with its memory, until all of
//! that is there. It is fetched: connections that break are made anew by the one who needs them.

use std::sync::Arc;
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::ask::{ask_once, hello, rest};
use super::counter::Desk;
use super::run::Departure;
use super::Source;
use crate::error::{chain, Error};
use crate::id::MigrationId;
use crate::phase::Phase;
use crate::phases::milliseconds;
use crate::progress::Event;
use crate::talk::Talk;
use crate::transport::{Deadline, Dialer};
use crate::wire::{Channel, Message, Purpose, Received, Token, Verdict, WireError};

/// How often the control connection is listened to.
const LISTEN: Duration = Duration::from_millis(100);
/// The first pause before a connection is made again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Serving has no limit of its own: what it waits for has.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// How serving ended.
pub(super) enum Served {
    /// All of it is there.
    All(Option<Talk>),
    /// The destination has killed the application.
    Lost(String),
    /// Neither is known.
    Unknown(String),
}

impl<'a> Departure<'a> {
    /// What is owed can be fetched from now on.
    pub(super) fn let_fetch<'scope>(&self, scope: &'scope Scope<'scope, '_>)
    where
        'a: 'scope,
    {
        let (Some(desk), Some(serving)) = (&self.desk, &self.account.serving) else { return };
        for _ in 0..serving.streams {
            let (desk, server) = (Arc::clone(desk), self.images.server);
            scope.spawn(move || desk.serve_on(server));
        }
    }

    /// Waits until the destination has all that it is owed.
    pub(super) fn serve(&mut self, talk: Option<Talk>) -> Result<Served, Error> {
        let (source, id, limits) = (self.source, self.plan.id, &self.plan.options.limits);
        let (account, desk) = (&mut self.account, self.desk.clone());
        self.phases.run(Phase::Serve, LONG, |_| {
            let reason = match talk {
                None => "the control connection is gone".to_owned(),
                Some(mut talk) => match listen(&mut talk, limits.silence, source, account.owed) {
                    Ok(Message::Here { bytes, faults, milliseconds }) => {
                        let owed = account.owed;
                        source.progress.event(Event::Filling { owed, bytes, faults, milliseconds });
                        (account.faults, account.filled_ms) = (faults, Some(milliseconds));
                        return Ok(Served::All(Some(talk)));
                    }
                    Ok(Message::Lost { reason }) => return Ok(Served::Lost(reason)),
                    Ok(other) => format!("it says {}", other.kind()),
                    Err(Error::Cancelled) => return Ok(Served::Unknown("this daemon ends".to_owned())),
                    Err(error) => chain(&error),
                },
            };
            account.warnings.push(format!("the control connection broke while memory was owed: {reason}"));
            let served = ask_on(source, id, limits, &reason, desk.as_deref());
            if let Some(here) = desk.as_ref().and_then(|desk| desk.here()) {
                (account.faults, account.filled_ms) = (here.faults, Some(here.milliseconds));
            }
            Ok(served)
        })
    }
}

fn listen(talk: &mut Talk, silence: Duration, source: &Source<'_>, owed: u64) -> Result<Message, Error> {
    let begun = Instant::now();
    let mut heard = begun;
    while heard.elapsed() < silence {
        if source.cancel.is_leaving() {
            return Err(Error::Cancelled);
        }
        match talk.channel().poll(LISTEN)? {
            None => {}
            Some(Received { message: Message::Working, .. }) => heard = Instant::now(),
            Some(Received { message: Message::Filling { bytes, faults }, .. }) => {
                heard = Instant::now();
                let milliseconds = milliseconds(begun.elapsed());
                source.progress.event(Event::Filling { owed, bytes, faults, milliseconds });
            }
            Some(Received { message: Message::Refused { reason, .. }, .. }) => {
                return Err(Error::Refused(reason))
            }
            Some(received) => return Ok(received.message),
        }
    }
    Err(WireError::Silent.into())
}

/// Asks again and again; data connections are others' business.
fn ask_on(
    source: &Source<'_>,
    id: crate::MigrationId,
    limits: &crate::options::Limits,
    reason: &str,
    desk: Option<&Desk>,
) -> Served {
    let mut heard = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut reason = reason.to_owned();
    for attempts in 1.. {
        // Whoever fills the memory there may tell it where no daemon does.
        if desk.and_then(Desk::here).is_some() {
            return Served::All(None);
        }
        match ask_once(source.dialer, id, limits) {
            Ok(Verdict::Owing) => (heard, pause) = (Instant::now(), FIRST_PAUSE),
            Ok(Verdict::Committed) => return Served::All(None),
            Ok(Verdict::Lost) => return Served::Lost("the memory that it was owed did not come".to_owned()),
            // It never does: it was committed.
            Ok(Verdict::Aborted) => return Served::Unknown("the destination denies it".to_owned()),
            Err(error) => {
                reason = chain(&error);
                source.progress.event(Event::Asking { attempts, reason: reason.clone() });
            }
        }
        // As long as it takes: the destination may have given up, and says so when it can be reached again.
        let too_long = limits.ask.is_some_and(|limit| heard.elapsed() + pause > limit);
        if too_long || !rest(pause, source.cancel) {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Served::Unknown(reason)
}

/// A data connection.
pub(super) struct Line<'a> {
    pub(super) dialer: &'a dyn Dialer,
    pub(super) id: MigrationId,
    pub(super) token: Token,
    pub(super) lane: u32,
}

impl Line<'_> {
    pub(super) fn open(&self, deadline: Deadline) -> Result<Channel, Error> {
        let connection = self.dialer.dial().map_err(Error::Dial)?;
        let mut channel = Channel::open(connection, self.id, self.lane);
        channel.send(&hello(Purpose::Data { token: self.token.clone() }), &[], deadline)?;
        match channel.receive(deadline)?.message {
            Message::Welcome { .. } => Ok(channel),
            Message::Refused { reason, .. } => Err(Error::Refused(reason)),
            other => Err(WireError::Unexpected { got: other.kind(), expected: "welcome" }.into()),
        }
    }
}
