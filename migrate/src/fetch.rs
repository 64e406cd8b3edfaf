//! What is owed is fetched, by whoever fills an application's memory at the destination: no part of the daemon, so that the
//! daemon's death concerns nobody. It connects to the source by itself, as often as it takes.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{chain, Error};
use crate::id::MigrationId;
use crate::images::Puller;
use crate::source::ask::hello;
use crate::transport::{Deadline, Dialer};
use crate::wire::{Channel, Message, Purpose, Token, WireError};

/// The first pause before a connection is made again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The number of the connection on which the end is told.
const LANE: u32 = u32::MAX;

/// What is to be fetched, and how the source knows that it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// The migration.
    pub id: MigrationId,
    /// The host that has it, as its certificate names it.
    pub source: String,
    token: Token,
    image: u32,
    name: String,
    size: u64,
    streams: u32,
    connect: Duration,
    silence: Duration,
    apart: Duration,
}

impl Errand {
    /// `name` and `size` are the source's of the one image of what is owed, `image` its number.
    #[allow(clippy::too_many_arguments, reason = "all that a peer has said, and our limits")]
    pub(crate) fn new(
        id: MigrationId,
        source: &str,
        token: &str,
        (image, name, size): (u32, String, u64),
        streams: u32,
        limits: &crate::options::Limits,
    ) -> Self {
        let (connect, silence, apart) = (limits.connect, limits.silence, limits.apart);
        let (source, token) = (source.to_owned(), token.to_owned());
        Self { id, source, token, image, name, size, streams: streams.max(1), connect, silence, apart }
    }
}

/// Fetches.
#[derive(Debug)]
pub struct Fetcher {
    errand: Errand,
    dialer: Arc<dyn Dialer>,
    puller: Arc<Puller>,
}

impl std::fmt::Debug for dyn Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Fetcher {
    /// Begins to connect.
    ///
    /// # Errors
    /// When there are no threads to be had, or there is no such image.
    pub fn start(errand: Errand, dialer: Box<dyn Dialer>) -> io::Result<Self> {
        let puller = Arc::new(Puller::new(0, errand.silence));
        puller.owe(errand.image, &errand.name, errand.size);
        // Nothing is decided: the source is as near as it was a moment ago, or not worth waiting for.
        puller.be_patient(errand.connect).map_err(io::Error::other)?;
        let dialer: Arc<dyn Dialer> = Arc::from(dialer);
        for lane in 1..=errand.streams {
            let line = Line {
                errand: errand.clone(),
                dialer: Arc::clone(&dialer),
                puller: Arc::clone(&puller),
                lane,
            };
            thread::Builder::new().name("fastmig-fetch".to_owned()).spawn(move || line.go())?;
        }
        Ok(Self { errand, dialer, puller })
    }

    /// Fills `into` from `offset` of the image on. Blocks while there is hope; `urgent` when somebody stands still for it.
    ///
    /// # Errors
    /// When it does not come any more.
    pub fn fetch(&self, image: &str, offset: u64, into: &mut [u8], urgent: bool) -> io::Result<()> {
        self.puller.fetch(image, offset, into, urgent)
    }

    /// From here on the source may be out of reach for as long as was asked for.
    ///
    /// # Errors
    /// When it is out of reach already: why.
    pub fn be_patient(&self) -> Result<(), String> {
        self.puller.be_patient(self.errand.apart)
    }

    /// Nothing comes any more.
    pub fn close(&self, reason: &str) {
        self.puller.close(reason);
    }

    /// Tells the source that all of it is here, for as long as that may take at the most. It asks the daemon otherwise.
    pub fn say_all_is_here(&self, bytes: u64, faults: u64, milliseconds: u64, limit: Duration) -> bool {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.tell(bytes, faults, milliseconds) {
                Ok(()) => return true,
                Err(error) => {
                    tracing::info!(reason = chain(&error), "the source does not hear that all is here");
                }
            }
            if begun.elapsed() + pause > limit {
                return false;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn tell(&self, bytes: u64, faults: u64, milliseconds: u64) -> Result<(), Error> {
        let deadline = Deadline::after(self.errand.connect);
        let connection = self.dialer.dial().map_err(Error::Dial)?;
        let mut channel = Channel::open_from_destination(connection, self.errand.id, LANE);
        let token = self.errand.token.clone();
        channel.send(&hello(Purpose::AllIsHere { token, bytes, faults, milliseconds }), &[], deadline)?;
        match channel.receive(deadline)?.message {
            Message::Done => Ok(()),
            Message::Refused { reason, .. } => Err(Error::Refused(reason)),
            other => Err(WireError::Unexpected { got: other.kind(), expected: "done" }.into()),
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.puller.close("it is needed no more");
    }
}

/// One connection, made again whenever it breaks.
struct Line {
    errand: Errand,
    dialer: Arc<dyn Dialer>,
    puller: Arc<Puller>,
    lane: u32,
}

impl Line {
    fn go(&self) {
        let mut pause = FIRST_PAUSE;
        while !self.puller.is_over() {
            match self.open() {
                Ok(channel) => {
                    pause = FIRST_PAUSE;
                    self.puller.work_here(channel);
                }
                Err(error) => {
                    self.puller.cannot_connect();
                    tracing::info!(
                        lane = self.lane,
                        reason = chain(&error),
                        "the source cannot be reached yet"
                    );
                }
            }
            if !self.puller.is_over() {
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn open(&self) -> Result<Channel, Error> {
        let deadline = Deadline::after(self.errand.connect);
        let connection = self.dialer.dial().map_err(Error::Dial)?;
        let mut channel = Channel::open_from_destination(connection, self.errand.id, self.lane);
        channel.send(&hello(Purpose::Fetch { token: self.errand.token.clone() }), &[], deadline)?;
        match channel.receive(deadline)?.message {
            Message::Welcome { .. } => Ok(channel),
            Message::Refused { reason, .. } => Err(Error::Refused(reason)),
            other => Err(WireError::Unexpected { got: other.kind(), expected: "welcome" }.into()),
        }
    }
}
