//! The control connection as both sides use it: one says, the other hears, with an eye on all limits.

use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::error::Error;
use crate::transport::Deadline;
use crate::wire::{Channel, Message, Received, WireError};

/// How often somebody who waits looks up.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Just a look whether something is there.
const GLANCE: Duration = Duration::from_millis(1);
/// Words of the other side's that one look reads.
const MOST_WORDS: u32 = 64;
/// How long the other side's last word is looked for after a connection broke.
const LAST_WORD: Duration = Duration::from_millis(500);

/// A control connection.
#[derive(Debug)]
pub(crate) struct Talk {
    channel: Channel,
    cancel: Cancel,
    /// How long the other side may say nothing while it is waited for.
    silence: Option<Duration>,
    /// How long what is said may wait to be taken.
    patience: Option<Duration>,
    /// When the application must run again.
    thaw: Option<(Deadline, Duration)>,
}

impl Talk {
    /// The source's, or whoever's who asks: the other side works, and says so.
    pub(crate) const fn asking(channel: Channel, cancel: Cancel, silence: Duration) -> Self {
        Self { channel, cancel, silence: Some(silence), patience: None, thaw: None }
    }

    /// The destination's: what it says is short, and is taken at once.
    pub(crate) const fn answering(channel: Channel, cancel: Cancel, patience: Duration) -> Self {
        Self { channel, cancel, silence: None, patience: Some(patience), thaw: None }
    }

    pub(crate) fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    pub(crate) const fn bytes_sent(&self) -> u64 {
        self.channel.bytes_sent()
    }

    /// Does what the other side may answer late, and say nothing before: it takes files or an image in.
    pub(crate) fn patiently<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let silence = self.silence.take();
        let done = work(self);
        self.silence = silence;
        done
    }

    /// From here on the application stands still, and no wait goes beyond `limit` from now.
    pub(crate) fn freeze(&mut self, limit: Duration) {
        self.thaw = Some((Deadline::after(limit), limit));
    }

    /// From here on nobody can cancel, and no limit takes the decision back.
    pub(crate) fn decide(&mut self) {
        self.cancel = Cancel::default();
        self.thaw = None;
        self.silence = None;
    }

    /// Whether the migration may go on.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match self.thaw {
            Some((thaw, limit)) if thaw.is_over() => Err(Error::FrozenTooLong(limit.as_secs())),
            _ => Ok(()),
        }
    }

    /// Whether the other side is still there, as far as is known without waiting.
    pub(crate) fn glance(&mut self) -> Result<(), Error> {
        self.check()?;
        // Behind the words that it works there may be its last.
        for _ in 0..MOST_WORDS {
            match self.channel.poll(GLANCE)? {
                None => break,
                Some(Received { message: Message::Working, .. }) => {}
                Some(Received { message: Message::Refused { reason, doubt }, .. }) => {
                    return Err(Error::refused(reason, doubt))
                }
                Some(other) => {
                    return Err(
                        WireError::Unexpected { got: other.message.kind(), expected: "nothing" }.into()
                    )
                }
            }
        }
        Ok(())
    }

    /// Sends a message.
    pub(crate) fn say(&mut self, message: &Message, payload: &[u8], deadline: Deadline) -> Result<(), Error> {
        self.check()?;
        let deadline = self.sending(deadline);
        self.channel.send(message, payload, deadline).map_err(|error| self.explain(error))
    }

    /// Sends one with the next, or when there is enough to send.
    pub(crate) fn say_soon(
        &mut self,
        message: &Message,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<(), Error> {
        self.check()?;
        let deadline = self.sending(deadline);
        self.channel.send_soon(message, payload, deadline).map_err(|error| self.explain(error))
    }

    /// Sends what waits for that.
    pub(crate) fn say_now(&mut self, deadline: Deadline) -> Result<(), Error> {
        let deadline = self.sending(deadline);
        self.channel.send_waiting(deadline).map_err(|error| self.explain(error))
    }

    fn sending(&self, deadline: Deadline) -> Deadline {
        deadline.or(self.thaw.map(|(thaw, _)| thaw)).or(self.patience.map(Deadline::after))
    }

    /// Waits for a message that means something.
    pub(crate) fn hear(&mut self, deadline: Deadline) -> Result<Received, Error> {
        self.hear_while(deadline, || Ok(()))
    }

    /// Waits for one as long as `watch`, which is asked now and then, has nothing against it.
    pub(crate) fn hear_while(
        &mut self,
        deadline: Deadline,
        mut watch: impl FnMut() -> Result<(), Error>,
    ) -> Result<Received, Error> {
        let mut heard = Instant::now();
        loop {
            self.check()?;
            watch()?;
            let left = deadline.or(self.thaw.map(|(thaw, _)| thaw)).left();
            let silent = self.silence.is_some_and(|silence| heard.elapsed() > silence);
            let Some(left) = left.filter(|_| !silent) else {
                self.check()?;
                return Err(WireError::Silent.into());
            };
            match self.channel.poll(left.min(LOOK_UP))? {
                None => {}
                Some(Received { message: Message::Working, .. }) => heard = Instant::now(),
                Some(Received { message: Message::Refused { reason, doubt }, .. }) => {
                    return Err(Error::refused(reason, doubt))
                }
                Some(received) => return Ok(received),
            }
        }
    }

    /// Waits for a message, and takes of it what `pick` wants.
    pub(crate) fn expect<T>(
        &mut self,
        expected: &'static str,
        deadline: Deadline,
        pick: impl FnOnce(Message) -> Option<T>,
    ) -> Result<T, Error> {
        let received = self.hear(deadline)?;
        let got = received.message.kind();
        pick(received.message).ok_or_else(|| WireError::Unexpected { got, expected }.into())
    }

    /// Waits for the plain answer that what was asked is done.
    pub(crate) fn expect_done(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.expect("done", deadline, |message| matches!(message, Message::Done).then_some(()))
    }

    /// Why nothing can be said: the other side's reason, if it gave one, and else the connection's.
    fn explain(&mut self, error: WireError) -> Error {
        if let Err(limit) = self.check() {
            return limit;
        }
        let deadline = Deadline::after(LAST_WORD);
        while let Some(left) = deadline.left() {
            match self.channel.poll(left) {
                Ok(Some(Received { message: Message::Refused { reason, doubt }, .. })) => {
                    return Error::refused(reason, doubt)
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        error.into()
    }
}
