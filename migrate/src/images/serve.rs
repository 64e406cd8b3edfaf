//! Memory, as the destination asks for it. One thread for each data connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::Meter;
use crate::chunk::{self, Chooser, Times, CHUNK, CHUNK_BYTES};
use crate::ends::Memory;
use crate::error::chain;
use crate::transport::Deadline;
use crate::wire::{Channel, Message, WireError};

/// How often a thread that waits looks whether it is still needed.
const LOOK_UP: Duration = Duration::from_millis(100);

/// An application's memory, and who asks for it.
pub(crate) struct MemoryServer<'a> {
    chooser: &'a Chooser,
    meter: &'a Meter<'a>,
    /// How long one answer may take to send.
    limit: Duration,
    shown: RwLock<Vec<Shown>>,
    stopped: AtomicBool,
    /// The application has moved, and this memory is owed: who asks no more on a connection has lost it.
    owes: AtomicBool,
    bytes_sent: AtomicU64,
}

/// One image, by the number under which it is asked for.
#[derive(Clone)]
struct Shown {
    memory: Arc<dyn Memory>,
    name: String,
    size: u64,
}

impl<'a> MemoryServer<'a> {
    pub(crate) fn new(chooser: &'a Chooser, meter: &'a Meter<'a>, limit: Duration) -> Self {
        Self {
            chooser,
            meter,
            limit,
            shown: RwLock::default(),
            stopped: AtomicBool::new(false),
            owes: AtomicBool::new(false),
            bytes_sent: AtomicU64::new(0),
        }
    }

    /// More memory that may be asked for: a round, or all of it. Returns names and sizes.
    pub(crate) fn show(&self, memory: &Arc<dyn Memory>) -> Vec<(String, u64)> {
        let images = memory.images();
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.extend(images.iter().map(|(name, size)| Shown {
            memory: Arc::clone(memory),
            name: name.clone(),
            size: *size,
        }));
        images
    }

    /// How many images may be asked for.
    pub(crate) fn shown(&self) -> u32 {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(shown.len()).unwrap_or(u32::MAX)
    }

    /// Memory that is owed, under the number that it had before; nothing else may be asked for.
    pub(crate) fn show_again(&self, image: u32, memory: &Arc<dyn Memory>) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let nothing = Shown { memory: Arc::clone(memory), name: String::new(), size: 0 };
        shown.resize(image as usize, nothing);
        drop(shown);
        self.show(memory);
    }

    /// All threads end soon.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// From here on there is always something to be asked for.
    pub(crate) fn owe(&self) {
        self.owes.store(true, Ordering::Release);
    }

    pub(crate) fn owes(&self) -> bool {
        self.owes.load(Ordering::Acquire)
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Answers on one connection until it is stopped, or the connection is of no more use.
    pub(crate) fn serve(&self, channel: &mut Channel) {
        let before = channel.bytes_sent();
        let served = self.answer_all(channel);
        self.bytes_sent.fetch_add(channel.bytes_sent() - before, Ordering::Relaxed);
        match served {
            Ok(()) | Err(WireError::Closed) => {}
            Err(error) => {
                tracing::warn!(?channel, reason = chain(&error), "a data connection ends");
                channel.refuse(chain(&error), Deadline::after(LOOK_UP));
            }
        }
    }

    fn answer_all(&self, channel: &mut Channel) -> Result<(), WireError> {
        let mut buffers = (Vec::new(), Vec::new());
        let mut asked = Instant::now();
        while !self.is_stopped() {
            let Some(received) = channel.poll(LOOK_UP)? else {
                if !self.owes() {
                    asked = Instant::now();
                } else if asked.elapsed() > self.limit {
                    return Err(WireError::Silent);
                }
                continue;
            };
            asked = Instant::now();
            match received.message {
                Message::Get { image, offset, length } => {
                    self.answer(channel, image, offset, length, &mut buffers)?;
                }
                other => return Err(WireError::Unexpected { got: other.kind(), expected: "get" }),
            }
        }
        Ok(())
    }

    fn answer(
        &self,
        channel: &mut Channel,
        image: u32,
        offset: u64,
        length: u32,
        (raw, packed): &mut (Vec<u8>, Vec<u8>),
    ) -> Result<(), WireError> {
        let wrong = |what: &str| WireError::Malformed(format!("it asks for memory {what}"));
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner).get(image as usize).cloned();
        let shown = shown.ok_or_else(|| wrong("of no image"))?;
        let end = offset.checked_add(length.into()).filter(|end| *end <= shown.size);
        if end.is_none() || u64::from(length) > CHUNK_BYTES {
            return Err(wrong("outside of an image"));
        }
        let codec = self.chooser.choose();
        raw.resize((length as usize).min(CHUNK), 0);
        shown.memory.read(&shown.name, offset, raw).map_err(WireError::Broken)?;
        let begun = Instant::now();
        let done = chunk::pack(raw, codec, packed).map_err(WireError::Broken)?;
        let packing = begun.elapsed();
        channel.send(&Message::Chunk { image, offset }, packed, Deadline::after(self.limit))?;
        let times = Times { packing, sending: begun.elapsed() - packing };
        self.chooser.learn(codec, done, packed.len(), times);
        self.meter.count(raw.len(), done, packed.len(), true);
        Ok(())
    }
}
