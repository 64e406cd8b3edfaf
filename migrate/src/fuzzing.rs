//! The doors through which another host's bytes come in, for fuzz targets. Not part of the interface.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::transport::{Connection, Deadline};
use crate::wire::{Channel, Head, Message, HEAD};

/// A frame's head.
pub fn head(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk::<HEAD>() {
        drop(Head::parse(head));
    }
}

/// A message; one that can be read is written and read again.
///
/// # Panics
/// When it comes out different.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let again = message.bytes().map(|bytes| Message::parse(&bytes));
        assert!(matches!(again, Ok(Ok(again)) if again == message), "a message reads as another");
    }
}

/// A chunk of an image.
pub fn chunk(bytes: &[u8]) {
    drop(crate::chunk::unpack(bytes));
}

/// All that arrives on a connection.
pub fn connection(bytes: &[u8]) {
    let replay = Replay(io::Cursor::new(bytes.to_vec()));
    let deadline = Deadline::after(Duration::from_secs(10));
    if let Ok((mut channel, ..)) = Channel::accept(Box::new(replay), deadline) {
        while channel.receive(deadline).is_ok() {}
    }
}

/// Bytes that another host is said to have sent.
#[derive(Debug)]
struct Replay(io::Cursor<Vec<u8>>);

impl Read for Replay {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Replay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Connection for Replay {
    fn limit(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}
