//! A stream of bytes over the control connection: files, and the content of an image.

use std::io::{self, Read, Write};

use crate::error::{chain, Error};
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::{Message, WireError};

/// Bytes of one frame.
const PIECE: usize = 256 << 10;

/// What is written goes to the other side.
#[derive(Debug)]
pub(crate) struct StreamOut<'a> {
    talk: &'a mut Talk,
    deadline: Deadline,
    piece: Vec<u8>,
    failed: Option<Error>,
}

impl<'a> StreamOut<'a> {
    pub(crate) fn new(talk: &'a mut Talk, deadline: Deadline) -> Self {
        Self { talk, deadline, piece: Vec::with_capacity(PIECE), failed: None }
    }

    /// The stream is complete. `written` is what came of writing it; the connection's failure is the cause of the writer's.
    pub(crate) fn finish<T>(mut self, written: Result<T, Error>) -> Result<T, Error> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let written = written?;
        self.send_piece()?;
        self.talk.say(&Message::BytesEnd, &[], self.deadline)?;
        Ok(written)
    }

    fn send_piece(&mut self) -> Result<(), Error> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let sent = self.talk.say(&Message::Bytes, &self.piece, self.deadline);
        self.piece.clear();
        sent
    }
}

impl Write for StreamOut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.send_piece().map_err(|error| {
            let text = chain(&error);
            self.failed = Some(error);
            io::Error::new(io::ErrorKind::BrokenPipe, text)
        })
    }
}

/// What the other side writes.
#[derive(Debug)]
pub(crate) struct StreamIn<'a> {
    talk: &'a mut Talk,
    deadline: Deadline,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    failed: Option<Error>,
    /// Bytes so far.
    bytes: u64,
}

impl<'a> StreamIn<'a> {
    pub(crate) fn new(talk: &'a mut Talk, deadline: Deadline) -> Self {
        Self { talk, deadline, piece: Vec::new(), at: 0, ended: false, failed: None, bytes: 0 }
    }

    /// Takes in what its reader left. `read` is what came of reading it; the connection's failure is the cause of the
    /// reader's.
    pub(crate) fn finish<T>(mut self, read: Result<T, Error>) -> Result<T, Error> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let read = read?;
        while !self.ended {
            self.next_piece()?;
        }
        Ok(read)
    }

    fn next_piece(&mut self) -> Result<(), Error> {
        let received = self.talk.hear(self.deadline)?;
        match received.message {
            Message::Bytes => {
                self.bytes += received.payload.len() as u64;
                (self.piece, self.at) = (received.payload, 0);
                Ok(())
            }
            Message::BytesEnd => {
                self.ended = true;
                Ok(())
            }
            other => Err(WireError::Unexpected { got: other.kind(), expected: "a part of a stream" }.into()),
        }
    }
}

impl Read for StreamIn<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.ended {
            if self.failed.is_some() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if let Err(error) = self.next_piece() {
                let text = chain(&error);
                self.failed = Some(error);
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
            }
        }
        let taken = into.len().min(self.piece.len() - self.at);
        into[..taken].copy_from_slice(&self.piece[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}
