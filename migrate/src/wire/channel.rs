//! Frames over a connection, within time limits.

use std::fmt;
use std::io;
use std::time::Duration;

use super::frame::{Head, Side, HEAD, MAX_MESSAGE, MAX_PAYLOAD};
use super::{agree, Message, WireError, SPOKEN};
use crate::ends::InDoubt;
use crate::id::MigrationId;
use crate::transport::{Connection, Deadline};

/// A message and its payload.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) payload: Vec<u8>,
}

/// One connection of a migration, as one side has it.
pub(crate) struct Channel {
    connection: Box<dyn Connection>,
    side: Side,
    id: MigrationId,
    lane: u32,
    /// Frames sent and received so far.
    sent: u64,
    received: u64,
    /// Bytes sent so far, heads included.
    bytes_sent: u64,
    /// A frame that is on its way in, as far as it is here.
    incoming: Vec<u8>,
    /// Frames that wait for more to go with.
    outgoing: Vec<u8>,
}

/// A payload that is not worth a system call of its own, and so many bytes that are.
const WORTH_SENDING: usize = 64 << 10;
/// So many bytes beyond a frame's head are read with it.
const READ_AHEAD: usize = 16 << 10;

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("lane", &self.lane)
            .field("sent", &self.sent)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// The source's side of a connection that it has just made.
    pub(crate) fn open(connection: Box<dyn Connection>, id: MigrationId, lane: u32) -> Self {
        Self::new(connection, Side::Source, id, lane)
    }

    /// The destination's side of a connection that it has made.
    pub(crate) fn open_from_destination(connection: Box<dyn Connection>, id: MigrationId, lane: u32) -> Self {
        Self::new(connection, Side::Destination, id, lane)
    }

    /// The side of a connection that did not make it, which learns from the first message what it belongs to. A peer of another
    /// version is told so.
    pub(crate) fn accept(
        connection: Box<dyn Connection>,
        deadline: Deadline,
    ) -> Result<(Self, u32, Received), WireError> {
        // Of which migration is not known before the first head is here.
        let mut channel = Self::new(connection, Side::Destination, MigrationId::from_bytes([0; 16]), 0);
        channel.fill(HEAD, deadline)?;
        let head = channel.head()?;
        (channel.id, channel.lane, channel.side) = (head.id, head.lane, head.from.other());
        channel.check(&head)?;
        channel.fill(HEAD + head.message + head.payload, deadline)?;
        let message = channel.incoming.get(HEAD..HEAD + head.message).unwrap_or_default();
        let agreed = Message::versions(message).and_then(|theirs| agree(SPOKEN, theirs));
        match agreed {
            Ok(protocol) => {
                let first = channel.take(&head)?;
                Ok((channel, protocol, first))
            }
            Err(error) => {
                channel.refuse(error.to_string(), deadline);
                Err(error)
            }
        }
    }

    fn new(connection: Box<dyn Connection>, side: Side, id: MigrationId, lane: u32) -> Self {
        Self {
            connection,
            side,
            id,
            lane,
            sent: 0,
            received: 0,
            bytes_sent: 0,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// Whether this is the source's side.
    pub(crate) fn is_source(&self) -> bool {
        self.side == Side::Source
    }

    pub(crate) const fn id(&self) -> MigrationId {
        self.id
    }

    pub(crate) const fn lane(&self) -> u32 {
        self.lane
    }

    pub(crate) const fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// How far what arrives has come: it grows while anything does.
    pub(crate) fn progress(&self) -> (u64, usize) {
        (self.received, self.incoming.len())
    }

    /// Sends a message with its payload.
    pub(crate) fn send(
        &mut self,
        message: &Message,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<(), WireError> {
        self.frame(message, payload)?;
        if payload.len() <= WORTH_SENDING {
            self.outgoing.extend_from_slice(payload);
            self.release(deadline)?;
        } else {
            self.release(deadline)?;
            self.write(payload, deadline)?;
        }
        self.flush(deadline)
    }

    /// Sends one with the next that is sent, or when that is worth it.
    pub(crate) fn send_soon(
        &mut self,
        message: &Message,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<(), WireError> {
        if payload.len() > WORTH_SENDING {
            return self.send(message, payload, deadline);
        }
        self.frame(message, payload)?;
        self.outgoing.extend_from_slice(payload);
        if self.outgoing.len() > WORTH_SENDING {
            self.send_waiting(deadline)?;
        }
        Ok(())
    }

    /// Sends what waits.
    pub(crate) fn send_waiting(&mut self, deadline: Deadline) -> Result<(), WireError> {
        self.release(deadline)?;
        self.flush(deadline)
    }

    /// Puts a frame's beginning behind what waits.
    fn frame(&mut self, message: &Message, payload: &[u8]) -> Result<(), WireError> {
        let text = message.bytes()?;
        within("a message", text.len(), MAX_MESSAGE)?;
        within("a payload", payload.len(), MAX_PAYLOAD)?;
        let head = Head {
            from: self.side,
            id: self.id,
            lane: self.lane,
            number: self.sent,
            message: text.len(),
            payload: payload.len(),
        };
        head.write(&mut self.outgoing);
        self.outgoing.extend_from_slice(&text);
        self.sent += 1;
        self.bytes_sent += (HEAD + text.len() + payload.len()) as u64;
        Ok(())
    }

    /// Nothing waits any more; after a failure the rest of a frame would be taken for the beginning of one.
    fn release(&mut self, deadline: Deadline) -> Result<(), WireError> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let written = self.write(&outgoing, deadline);
        outgoing.clear();
        self.outgoing = outgoing;
        written
    }

    /// Says no, as a last word that need not arrive.
    pub(crate) fn refuse(&mut self, reason: String, deadline: Deadline) {
        self.give_up(reason, None, deadline);
    }

    /// The same, and whether that is for a [`crate::ends::Doubt`].
    pub(crate) fn give_up(&mut self, reason: String, doubt: Option<Vec<InDoubt>>, deadline: Deadline) {
        if let Err(error) = self.send(&Message::Refused { reason, doubt }, &[], deadline) {
            tracing::debug!(%error, "the other host does not hear the refusal");
        }
    }

    /// Takes in what the other side still sends, until it closes or the time is over. A socket that is closed with bytes
    /// unread takes the last word back.
    pub(crate) fn drain(&mut self, deadline: Deadline) {
        let mut nowhere = [0; 64 << 10];
        while let Some(left) = deadline.left() {
            if self.connection.limit(left).is_err() {
                return;
            }
            match self.connection.read(&mut nowhere) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Waits for the next message.
    pub(crate) fn receive(&mut self, deadline: Deadline) -> Result<Received, WireError> {
        self.fill(HEAD, deadline)?;
        let head = self.head()?;
        self.check(&head)?;
        self.fill(HEAD + head.message + head.payload, deadline)?;
        self.take(&head)
    }

    /// Waits a little for the next message. What has arrived of one stays for the next call.
    pub(crate) fn poll(&mut self, patience: Duration) -> Result<Option<Received>, WireError> {
        match self.receive(Deadline::after(patience)) {
            Ok(received) => Ok(Some(received)),
            Err(WireError::Silent) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn head(&self) -> Result<Head, WireError> {
        let head = self.incoming.first_chunk::<HEAD>().ok_or(WireError::Closed)?;
        Head::parse(head)
    }

    /// Whether a frame is the one that is due.
    fn check(&self, head: &Head) -> Result<(), WireError> {
        if head.id != self.id {
            return Err(WireError::Foreign("another migration"));
        }
        if head.lane != self.lane {
            return Err(WireError::Foreign("another connection"));
        }
        if head.from != self.side.other() {
            return Err(WireError::Foreign("our own"));
        }
        if head.number != self.received {
            return Err(WireError::OutOfOrder { expected: self.received, got: head.number });
        }
        Ok(())
    }

    /// Takes the frame that is here.
    fn take(&mut self, head: &Head) -> Result<Received, WireError> {
        let mut frame = std::mem::take(&mut self.incoming);
        self.incoming = frame.split_off(HEAD + head.message + head.payload);
        self.received += 1;
        let payload = frame.split_off(HEAD + head.message);
        let message = Message::parse(frame.get(HEAD..).unwrap_or_default())?;
        Ok(Received { message, payload })
    }

    /// Reads until `size` bytes of the frame are here; what comes with its head is taken along.
    fn fill(&mut self, size: usize, deadline: Deadline) -> Result<(), WireError> {
        let mut here = self.incoming.len();
        if here >= size {
            return Ok(());
        }
        self.incoming.resize(if size == HEAD { HEAD + READ_AHEAD } else { size }, 0);
        let read = loop {
            if here >= size {
                break Ok(());
            }
            match self.read_some(here, deadline) {
                Ok(read) => here += read,
                Err(error) => break Err(error),
            }
        };
        self.incoming.truncate(here);
        read
    }

    fn read_some(&mut self, here: usize, deadline: Deadline) -> Result<usize, WireError> {
        self.connection.limit(deadline.left().ok_or(WireError::Silent)?).map_err(WireError::Broken)?;
        match self.connection.read(&mut self.incoming[here..]) {
            Ok(0) => Err(WireError::Closed),
            Ok(read) => Ok(read),
            Err(error) => failed(error).map(|()| 0),
        }
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Deadline) -> Result<(), WireError> {
        while !bytes.is_empty() {
            self.connection.limit(deadline.left().ok_or(WireError::Silent)?).map_err(WireError::Broken)?;
            match self.connection.write(bytes) {
                Ok(0) => return Err(WireError::Closed),
                Ok(written) => bytes = &bytes[written..],
                Err(error) => failed(error)?,
            }
        }
        Ok(())
    }

    fn flush(&mut self, deadline: Deadline) -> Result<(), WireError> {
        loop {
            self.connection.limit(deadline.left().ok_or(WireError::Silent)?).map_err(WireError::Broken)?;
            match self.connection.flush() {
                Ok(()) => return Ok(()),
                Err(error) => failed(error)?,
            }
        }
    }
}

/// Nothing when it may be tried again.
fn failed(error: io::Error) -> Result<(), WireError> {
    match error.kind() {
        // Whether the time is over is for the deadline to say.
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(()),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Err(WireError::Closed)
        }
        _ => Err(WireError::Broken(error)),
    }
}

fn within(what: &'static str, size: usize, most: usize) -> Result<(), WireError> {
    if size > most {
        return Err(WireError::Oversized { what, size: size as u64, most: most as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_secs(10);

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let id = MigrationId::from_bytes([7; 16]);
        let channel = |stream: UnixStream, side| Channel::new(Box::new(stream), side, id, 0);
        (channel(ours, Side::Source), channel(theirs, Side::Destination))
    }

    fn image(name: &str) -> Message {
        Message::Image { name: name.to_owned(), large: false, last: true }
    }

    fn name(received: Option<Received>) -> Option<String> {
        received.map(|received| match received.message {
            Message::Image { name, .. } => name,
            other => other.kind().to_owned(),
        })
    }

    #[test]
    fn small_frames_go_with_the_next_that_is_sent_and_in_their_order() {
        let (mut ours, mut theirs) = pair();
        for text in ["a", "b"] {
            ours.send_soon(&image(text), text.as_bytes(), Deadline::after(SOON)).unwrap();
        }
        assert_eq!(name(theirs.poll(Duration::from_millis(20)).unwrap()), None);
        ours.send(&Message::Working, &[], Deadline::after(SOON)).unwrap();
        let heard: Vec<_> = (0..3).filter_map(|_| name(theirs.poll(SOON).unwrap())).collect();
        assert_eq!(heard, ["a", "b", Message::Working.kind()]);
    }

    #[test]
    fn large_ones_and_enough_small_ones_go_at_once() {
        let (mut ours, mut theirs) = pair();
        let (small, large) = (vec![1; 1000], vec![2; WORTH_SENDING + 1]);
        ours.send_soon(&image("small"), &small, Deadline::after(SOON)).unwrap();
        let sender = std::thread::spawn(move || {
            ours.send_soon(&image("large"), &large, Deadline::after(SOON)).unwrap();
            for _ in 0..=WORTH_SENDING / small.len() {
                ours.send_soon(&image("many"), &small, Deadline::after(SOON)).unwrap();
            }
            ours
        });
        let heard: Vec<_> = (0..3).map(|_| theirs.receive(Deadline::after(SOON)).unwrap()).collect();
        let lengths: Vec<_> = heard.iter().map(|received| received.payload.len()).collect();
        assert_eq!(lengths, [1000, WORTH_SENDING + 1, 1000]);
        assert!(heard[1].payload.iter().all(|byte| *byte == 2));
        drop(sender.join().unwrap());
    }
}
