//! The two conversations with the init: events on one connection, questions and answers on others.

use std::time::{Duration, Instant};

use fastmig_control::{Account, Event, ExitStatus, Refusal, Reply, Request};

use crate::init::{Events, InitClient};
use crate::{Container, Error};

/// Between two tries to reach an init that has no room.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What came.
pub(super) enum Heard {
    Event(Event),
    /// Nothing in the time that was given.
    Nothing,
    /// The init is no more.
    End,
}

/// Who listens to one container's init.
pub(super) struct Watch {
    container: Container,
    events: Events,
}

impl Watch {
    pub(super) fn begin(container: &Container) -> Result<Self, Error> {
        let events = container.init()?.subscribe()?;
        Ok(Self { container: container.clone(), events })
    }

    /// The next event; waits for ever, or until `deadline`.
    pub(super) fn hear(&self, deadline: Option<Instant>) -> Result<Heard, Error> {
        match self.events.next(deadline) {
            Ok(Some(event)) => Ok(Heard::Event(event)),
            Ok(None) => Ok(Heard::Nothing),
            Err(_) if !self.container.is_up() => Ok(Heard::End),
            Err(source) => Err(Error::Init { id: self.container.key().id().into(), source }),
        }
    }

    /// The account of the last end, if a decision about it is waited for.
    pub(super) fn waits(&self) -> Result<Option<Account>, Error> {
        let init = self.init()?;
        match init.ask(&Request::Account)? {
            Reply::Account(account) => Ok(Some(account).filter(|account| account.waits)),
            other => Err(init.nonsense(&other)),
        }
    }

    pub(super) fn last_exit(&self) -> Result<Option<ExitStatus>, Error> {
        Ok(self.init()?.status()?.last_exit)
    }

    /// The decision takes so much longer. Whether it is still waited for.
    pub(super) fn postpone(&self, time: Duration) -> Result<bool, Error> {
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.tell(&Request::Postpone { ms })
    }

    /// Nothing comes up. Whether that was still to be decided.
    pub(super) fn stay(&self) -> Result<bool, Error> {
        self.tell(&Request::Stay)
    }

    /// The container ends.
    pub(super) fn end(&self, code: u8) -> Result<(), Error> {
        self.init()?.ask(&Request::End { code }).map(drop)
    }

    fn tell(&self, request: &Request) -> Result<bool, Error> {
        match self.init()?.ask(request) {
            Ok(_) => Ok(true),
            Err(Error::Refused { source: Refusal::NothingToDecide, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn init(&self) -> Result<InitClient, Error> {
        self.container.init()
    }
}
