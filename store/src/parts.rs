//! The stream cut into parts of one size on its way out, and put together again on its way in.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{Receiver, Sender};

/// Bytes of a part, but for the last. A registry's manifest of 4 MiB has room for some 20,000 of them.
pub(crate) const PART_SIZE: usize = if cfg!(test) { 64 << 10 } else { 16 << 20 };

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

/// Parts that wait between the two sides; with those that are on the link, what memory holds.
pub(crate) const QUEUE: usize = 2;

/// Parts that are on the link at a time.
pub(crate) const IN_FLIGHT: usize = 4;

/// A part that is to be stored.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// From 0.
    pub(crate) number: usize,
    pub(crate) part: Part,
    pub(crate) content: Bytes,
}

/// Cuts what is written into parts. Blocks while they are on their way.
#[derive(Debug)]
pub(crate) struct PartWriter {
    next: usize,
    content: BytesMut,
    out: Sender<Outgoing>,
}

impl PartWriter {
    pub(crate) fn new(out: Sender<Outgoing>) -> Self {
        Self { next: 0, content: BytesMut::new(), out }
    }

    /// Sends what is left: without this the last part is missing.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.content.is_empty() {
            return Ok(());
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let content = std::mem::take(&mut self.content).freeze();
        let part = describe(&content);
        let number = self.next;
        self.next += 1;
        // Whoever takes them has given up, and says why himself.
        self.out
            .blocking_send(Outgoing { number, part, content })
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PartWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.content.capacity() == 0 {
            self.content.reserve(PART_SIZE);
        }
        let count = data.len().min(PART_SIZE - self.content.len());
        self.content.extend_from_slice(&data[..count]);
        if self.content.len() == PART_SIZE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the label says of a part with this content.
pub(crate) fn describe(content: &[u8]) -> Part {
    Part { size: content.len() as u64, sha256: hex::encode(Sha256::digest(content)) }
}

/// Reads parts as one stream. It ends where they end: whoever sends them knows whether that was too early.
#[derive(Debug)]
pub(crate) struct PartReader {
    current: Bytes,
    parts: Receiver<Bytes>,
}

impl PartReader {
    pub(crate) fn new(parts: Receiver<Bytes>) -> Self {
        Self { current: Bytes::new(), parts }
    }
}

impl Read for PartReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.current = part,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.current.len());
        self.current.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[test]
    fn what_is_cut_is_put_together_again() {
        let content: Vec<u8> = (0..=250).cycle().take(2 * PART_SIZE + 5).collect();
        let (sender, mut receiver) = mpsc::channel(8);
        let mut writer = PartWriter::new(sender);
        writer.write_all(&content).unwrap();
        writer.finish().unwrap();
        let mut parts = Vec::new();
        while let Some(part) = receiver.blocking_recv() {
            parts.push(part);
        }
        assert_eq!(parts.iter().map(|p| p.number).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(
            parts.iter().map(|p| p.part.size).collect::<Vec<_>>(),
            [PART_SIZE as u64, PART_SIZE as u64, 5]
        );
        assert!(parts.iter().all(|p| p.part == describe(&p.content)));
        let (sender, receiver) = mpsc::channel(8);
        parts.into_iter().for_each(|part| sender.blocking_send(part.content).unwrap());
        drop(sender);
        let mut again = Vec::new();
        PartReader::new(receiver).read_to_end(&mut again).unwrap();
        assert_eq!(again, content);
    }

    #[test]
    fn a_taker_that_gives_up_ends_the_writer() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let error = PartWriter::new(sender).write_all(&vec![0; PART_SIZE]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
