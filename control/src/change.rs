//! Changes to the image's command: words of any length, which no other message has.

use crate::wire::DecodeError;
use crate::{MAX_PACKET, VERSION};

/// The longest word: what a packet has room for.
pub const MAX_WORD: usize = MAX_PACKET - 2;

/// How many changes the init keeps.
pub const MAX_CHANGES: usize = 256;

/// A change to how the image's command is started from now on. Always legal. `Ok`, or `Refused(TooManyChanges)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// None of those before counts any more.
    Forget,
    /// One more argument.
    Argument(&'a [u8]),
    /// `NAME=VALUE` in its environment.
    Set(&'a [u8]),
    /// No variable of this name in its environment.
    Unset(&'a [u8]),
}

/// Kinds of changes: 0x31 to 0x34.
mod kind {
    pub(super) const FORGET: u8 = 0x31;
    pub(super) const ARGUMENT: u8 = 0x32;
    pub(super) const SET: u8 = 0x33;
    pub(super) const UNSET: u8 = 0x34;
}

impl<'a> Change<'a> {
    /// The change's bytes; none when its word is longer than [`MAX_WORD`] or would not be read as it is.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let packet = [&[VERSION, self.kind()], self.word()].concat();
        let sound = matches!(Change::decode(&packet), Some(Ok(read)) if read == *self);
        sound.then_some(packet)
    }

    /// Reads a change; none when the packet is something else.
    ///
    /// # Errors
    /// [`DecodeError`] when its word is one that no process can have.
    #[must_use]
    pub fn decode(packet: &'a [u8]) -> Option<Result<Self, DecodeError>> {
        let (&[version, kind], word) = packet.split_first_chunk()?;
        if version != VERSION || packet.len() > MAX_PACKET {
            return None;
        }
        let named = |word: &[u8]| !word.is_empty() && !word.starts_with(b"=");
        let (change, sound) = match kind {
            kind::FORGET => (Self::Forget, word.is_empty()),
            kind::ARGUMENT => (Self::Argument(word), true),
            kind::SET => (Self::Set(word), named(word) && word.contains(&b'=')),
            kind::UNSET => (Self::Unset(word), named(word) && !word.contains(&b'=')),
            _ => return None,
        };
        if sound && !word.contains(&0) {
            return Some(Ok(change));
        }
        Some(Err(DecodeError::BadWord { kind }))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Forget => kind::FORGET,
            Self::Argument(_) => kind::ARGUMENT,
            Self::Set(_) => kind::SET,
            Self::Unset(_) => kind::UNSET,
        }
    }

    fn word(&self) -> &'a [u8] {
        match self {
            Self::Forget => b"",
            Self::Argument(word) | Self::Set(word) | Self::Unset(word) => word,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_one_encoding() {
        let long = vec![b'x'; MAX_WORD];
        let changes = [
            Change::Forget,
            Change::Argument(b""),
            Change::Argument(&long),
            Change::Set(b"A="),
            Change::Set(b"A=b=c"),
            Change::Unset(b"A"),
        ];
        for change in changes {
            let packet = change.encode().unwrap();
            assert_eq!(Change::decode(&packet), Some(Ok(change)));
        }
    }

    #[test]
    fn words_that_no_process_can_have_are_refused() {
        let longer = vec![b'x'; MAX_WORD + 1];
        for change in [
            Change::Argument(b"a\0b"),
            Change::Argument(&longer),
            Change::Set(b"A"),
            Change::Set(b"=b"),
            Change::Unset(b"A=b"),
            Change::Unset(b""),
        ] {
            assert_eq!(change.encode(), None, "{change:?}");
        }
        let refused =
            |packet: &[u8]| matches!(Change::decode(packet), Some(Err(DecodeError::BadWord { .. })));
        assert!(refused(&[VERSION, 0x31, b'x']) && refused(&[VERSION, 0x33, b'A']));
        for other in [&[][..], &[VERSION], &[VERSION, 0x0b], &[2, 0x31]] {
            assert_eq!(Change::decode(other), None);
        }
    }
}
