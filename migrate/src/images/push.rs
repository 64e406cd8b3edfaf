//! Images as the dump makes them go to the destination, chunk by chunk.

use std::io;
use std::time::Instant;

use super::Meter;
use crate::chunk::{self, Chooser, Times, CHUNK};
use crate::ends::Images;
use crate::error::{chain, Error};
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::Message;

/// Takes images from a dump.
pub(crate) struct Pusher<'a> {
    talk: &'a mut Talk,
    chooser: &'a Chooser,
    meter: &'a Meter<'a>,
    deadline: Deadline,
    packed: Vec<u8>,
    failed: Option<Error>,
}

impl<'a> Pusher<'a> {
    pub(crate) fn new(
        talk: &'a mut Talk,
        chooser: &'a Chooser,
        meter: &'a Meter<'a>,
        deadline: Deadline,
    ) -> Self {
        Self { talk, chooser, meter, deadline, packed: Vec::new(), failed: None }
    }

    /// All images are sent. `dumped` is what came of the dump; the connection's failure is the cause of the dump's.
    pub(crate) fn finish<T>(self, dumped: Result<T, Error>) -> Result<T, Error> {
        self.failed.map_or(Ok(()), Err)?;
        let dumped = dumped?;
        self.talk.say_now(self.deadline)?;
        Ok(dumped)
    }

    fn push(&mut self, name: &str, content: &[u8], large: bool, last: bool) -> io::Result<()> {
        if self.failed.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.try_push(name, content, large, last).map_err(|error| {
            let text = chain(&error);
            self.failed = Some(error);
            io::Error::new(io::ErrorKind::BrokenPipe, text)
        })
    }

    fn try_push(&mut self, name: &str, content: &[u8], large: bool, last: bool) -> Result<(), Error> {
        let chunks = content.len().div_ceil(CHUNK).max(1);
        for index in 0..chunks {
            let chunk = &content[index * CHUNK..content.len().min((index + 1) * CHUNK)];
            let message = Message::Image { name: name.to_owned(), large, last: last && index + 1 == chunks };
            self.send(&message, chunk)?;
        }
        Ok(())
    }

    fn send(&mut self, message: &Message, chunk: &[u8]) -> Result<(), Error> {
        let codec = self.chooser.choose();
        let begun = Instant::now();
        let packed = chunk::pack(chunk, codec, &mut self.packed);
        let packed = packed.map_err(|error| Error::end("compress an image")(error.into()))?;
        let packing = begun.elapsed();
        self.talk.say_soon(message, &self.packed, self.deadline)?;
        let times = Times { packing, sending: begun.elapsed() - packing };
        self.chooser.learn(codec, packed, self.packed.len(), times);
        self.meter.count(chunk.len(), packed, self.packed.len(), false);
        Ok(())
    }
}

impl Images for Pusher<'_> {
    fn image(&mut self, name: &str, content: Vec<u8>) -> io::Result<()> {
        self.push(name, &content, false, true)
    }

    fn part(&mut self, name: &str, content: Vec<u8>, last: bool) -> io::Result<()> {
        self.push(name, &content, true, last)
    }
}
