//! Memory over all data connections: each has a thread that asks for chunks, and gives those to others that it cannot get.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::owed::{Owed, Wish};
use super::window::{Piece, Window};
use super::{is_name, MOST_IMAGES};
use crate::chunk;
use crate::error::{chain, Error};
use crate::transport::Deadline;
use crate::wire::{Channel, Message, Received, WireError};

/// Chunks that are asked for on a connection at the same time, so that the link does not stand still between them.
const AHEAD: usize = 2;
/// How often a thread that waits looks whether it is still needed.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Why owed memory does not come.
const UNREACHABLE: &str = "the other host cannot be reached any more";

/// The memory of an application on its way.
#[derive(Debug)]
pub(crate) struct Puller {
    /// How long an answer may take.
    limit: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    window: Window,
    names: Vec<String>,
    owed: Owed,
    connections: u32,
    /// Why nothing comes any more.
    over: Option<String>,
}

impl Puller {
    pub(crate) fn new(window: u64, limit: Duration) -> Self {
        let (window, names, owed) = (Window::new(window), Vec::new(), Owed::default());
        let state = State { window, names, owed, connections: 0, over: None };
        Self { limit, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// One more connection, which gets a thread.
    pub(crate) fn attach(self: &Arc<Self>, channel: Channel) -> io::Result<()> {
        self.lock().connections += 1;
        let puller = Arc::clone(self);
        let spawned =
            thread::Builder::new().name("fastmig-pull".to_owned()).spawn(move || puller.work(channel));
        if let Err(error) = spawned {
            self.lock().connections -= 1;
            return Err(error);
        }
        Ok(())
    }

    /// More images of memory that can be asked for.
    pub(crate) fn announce(&self, memory: Vec<(String, u64)>) -> Result<(), Error> {
        let malformed = |what: &str| Error::from(WireError::Malformed(format!("images of memory {what}")));
        let mut names: Vec<_> = memory.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != memory.len() || !names.iter().all(|name| is_name(name)) {
            return Err(malformed("whose names are none"));
        }
        let mut state = self.lock();
        if state.names.len() + memory.len() > MOST_IMAGES {
            return Err(malformed("too many"));
        }
        if memory.iter().any(|(name, _)| state.names.contains(name)) {
            return Err(malformed("that are there already"));
        }
        if state.connections == 0 && !memory.is_empty() {
            return Err(malformed("without a connection for them"));
        }
        state.window.announce(memory.iter().map(|(_, size)| *size));
        state.names.extend(memory.into_iter().map(|(name, _)| name));
        self.changed.notify_all();
        Ok(())
    }

    /// An image that others ask for: its number.
    pub(crate) fn leave_out(&self, name: &str) -> Result<u32, Error> {
        let malformed = |what: &str| Error::from(WireError::Malformed(format!("owed memory {what}")));
        let mut state = self.lock();
        if !is_name(name) || state.names.len() >= MOST_IMAGES || state.names.iter().any(|known| known == name)
        {
            return Err(malformed("whose name is none"));
        }
        let image = u32::try_from(state.names.len()).map_err(|_| malformed("too many"))?;
        // Nobody opens it.
        state.names.push(String::new());
        state.window.pass_over(1);
        Ok(image)
    }

    /// Memory that is owed: it can be fetched in any order.
    pub(crate) fn owe(&self, image: u32, name: &str, size: u64) {
        let mut state = self.lock();
        state.owed.announce(name.to_owned(), image, size);
        state.owed.lost();
    }

    /// From here on the other host may be out of reach for so long.
    ///
    /// # Errors
    /// When it is out of reach already, and what was asked for does not come any more: with the reason.
    pub(crate) fn be_patient(&self, limit: Duration) -> Result<(), String> {
        let mut state = self.lock();
        if let Some(over) = &state.over {
            return Err(over.clone());
        }
        state.owed.be_patient(limit);
        Ok(())
    }

    /// Nobody could be reached: that may go on for too long.
    pub(crate) fn cannot_connect(&self) {
        let mut state = self.lock();
        if state.connections == 0 && state.owed.is_hopeless() {
            state.over.get_or_insert_with(|| UNREACHABLE.to_owned());
            self.changed.notify_all();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().over.is_some()
    }

    /// Works on one more connection until it is of no more use.
    pub(crate) fn work_here(&self, channel: Channel) {
        {
            let mut state = self.lock();
            state.connections += 1;
            state.owed.found_again();
        }
        self.work(channel);
    }

    /// Fills `into` from `offset` of an image that is owed.
    pub(crate) fn fetch(&self, image: &str, offset: u64, into: &mut [u8], urgent: bool) -> io::Result<()> {
        let mut state = self.lock();
        let wish = state.owed.wish(image, offset, into.len(), urgent).ok_or(io::ErrorKind::InvalidInput)?;
        self.changed.notify_all();
        loop {
            if let Some(content) = state.owed.take(wish) {
                into.copy_from_slice(content.get(..into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
                return Ok(());
            }
            if state.over.is_none() && state.connections == 0 && state.owed.is_hopeless() {
                state.over = Some(UNREACHABLE.to_owned());
            }
            if let Some(over) = &state.over {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, over.clone()));
            }
            state = self.changed.wait_timeout(state, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing comes any more: readers fail, threads end.
    pub(crate) fn close(&self, reason: &str) {
        self.lock().over.get_or_insert_with(|| reason.to_owned());
        self.changed.notify_all();
    }

    /// The most bytes that were asked for and not yet read.
    pub(crate) fn most_open(&self) -> u64 {
        self.lock().window.most_open()
    }

    /// Opens an image; nothing when there is none of that name.
    pub(crate) fn open(self: &Arc<Self>, name: &str) -> Option<PullReader> {
        let mut state = self.lock();
        let index = state.names.iter().position(|known| known == name)?;
        let image = u32::try_from(index).ok()?;
        // Read once: it is forgotten now.
        state.names[index].clear();
        state.window.open(image);
        self.changed.notify_all();
        Some(PullReader { puller: Arc::clone(self), image, chunk: Vec::new(), at: 0 })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left its chunk out, which its reader finds out by its limit.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a connection's thread does.
    fn work(&self, mut channel: Channel) {
        let mut asked = VecDeque::new();
        let worked = self.ask_all(&mut channel, &mut asked);
        let mut state = self.lock();
        state.connections -= 1;
        // The first that was asked for is the first to be asked for again.
        while let Some(asked) = asked.pop_back() {
            match asked {
                Asked::Read(piece) => state.window.again(piece),
                Asked::Owed(wish, piece) => state.owed.again(wish, piece),
            }
        }
        if let Err(error) = worked {
            let reason = chain(&error);
            tracing::warn!(?channel, reason, left = state.connections, "a data connection breaks");
            if state.connections > 0 {
            } else if state.owed.is_patient() {
                state.owed.lost();
            } else {
                state.over.get_or_insert_with(|| format!("the last data connection broke: {reason}"));
            }
        }
        self.changed.notify_all();
    }

    fn ask_all(&self, channel: &mut Channel, asked: &mut VecDeque<Asked>) -> Result<(), WireError> {
        while self.next_pieces(asked, channel)? {
            let Some(front) = asked.front().copied() else {
                continue;
            };
            let content = self.receive(channel, front.piece())?;
            asked.pop_front();
            match front {
                Asked::Read(piece) => self.lock().window.arrive(piece, content),
                Asked::Owed(wish, _) => self.lock().owed.arrive(wish, content),
            }
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Asks for more; waits when there is nothing to be asked for. Says whether to go on.
    fn next_pieces(&self, asked: &mut VecDeque<Asked>, channel: &mut Channel) -> Result<bool, WireError> {
        while asked.len() < AHEAD {
            let mut state = self.lock();
            if state.over.is_some() {
                return Ok(false);
            }
            let Some(next) = state.next() else {
                if asked.is_empty() {
                    drop(self.changed.wait_timeout(state, LOOK_UP));
                }
                return Ok(true);
            };
            drop(state);
            asked.push_back(next);
            let piece = next.piece();
            let get = Message::Get { image: piece.image, offset: piece.offset, length: piece.length };
            channel.send(&get, &[], Deadline::after(self.limit))?;
        }
        Ok(true)
    }

    fn receive(&self, channel: &mut Channel, piece: Piece) -> Result<Vec<u8>, WireError> {
        let mut deadline = Deadline::after(self.limit);
        while !deadline.is_over() {
            if self.lock().over.is_some() {
                return Err(WireError::Closed);
            }
            let before = channel.progress();
            if let Some(received) = channel.poll(LOOK_UP)? {
                return content(received, piece);
            }
            // A slow link is not a silent one.
            if channel.progress() != before {
                deadline = Deadline::after(self.limit);
            }
        }
        Err(WireError::Silent)
    }

    /// Waits for the next chunk of an image.
    fn read(&self, image: u32) -> io::Result<Vec<u8>> {
        let waited = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.window.read(image) {
                // There may be more to ask for.
                self.changed.notify_all();
                return Ok(chunk);
            }
            if let Some(over) = &state.over {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, over.clone()));
            }
            // Each connection gives a chunk up in time, one after the other in the worst case.
            if waited.elapsed() > self.limit * (state.connections + 1) * 2 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "memory does not come"));
            }
            state = self.changed.wait_timeout(state, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Something that was asked for on a connection.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Read(Piece),
    Owed(Wish, Piece),
}

impl Asked {
    const fn piece(self) -> Piece {
        match self {
            Self::Read(piece) | Self::Owed(_, piece) => piece,
        }
    }
}

impl State {
    /// What is to be asked for next: first what somebody stands still for.
    fn next(&mut self) -> Option<Asked> {
        let owed = |(wish, piece)| Asked::Owed(wish, piece);
        let urgent = self.owed.next(true).map(owed);
        let read = urgent.or_else(|| self.window.next().map(Asked::Read));
        read.or_else(|| self.owed.next(false).map(owed))
    }
}

fn content(received: Received, piece: Piece) -> Result<Vec<u8>, WireError> {
    match received.message {
        Message::Chunk { image, offset } if (image, offset) == (piece.image, piece.offset) => {
            let content = chunk::unpack(&received.payload)?;
            if content.len() != piece.length as usize {
                return Err(WireError::Malformed("a chunk of another size than was asked for".to_owned()));
            }
            Ok(content)
        }
        Message::Refused { reason, .. } => Err(WireError::Malformed(reason)),
        other => Err(WireError::Unexpected { got: other.kind(), expected: "the chunk that was asked for" }),
    }
}

/// Reads an image while it comes.
#[derive(Debug)]
pub(crate) struct PullReader {
    puller: Arc<Puller>,
    image: u32,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for PullReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !into.is_empty() {
            self.chunk = self.puller.read(self.image)?;
            self.at = 0;
        }
        let taken = into.len().min(self.chunk.len() - self.at);
        into[..taken].copy_from_slice(&self.chunk[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

impl Drop for PullReader {
    fn drop(&mut self) {
        self.puller.lock().window.close(self.image);
        self.puller.changed.notify_all();
    }
}
