//! Bytes: a packet that is written without allocation and a reader that checks every step.

use crate::{MAX_PACKET, VERSION};

/// A number outside of what its field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} is out of range")]
pub struct OutOfRange {
    /// The kind of value: `pid`, `signal`, `errno` or the name of a field.
    pub what: &'static str,
    /// What was given.
    pub value: i64,
}

/// Why a packet is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {theirs} of the control protocol, this side version {ours}")]
    Version {
        /// The version of this crate.
        ours: u8,
        /// The version in the packet.
        theirs: u8,
    },
    /// The kind is not one of those that may come from this peer.
    #[error("message kind {kind:#04x} is unknown")]
    UnknownKind {
        /// The second byte of the packet.
        kind: u8,
    },
    /// The packet ends within a field.
    #[error("the message is cut off after {length} bytes")]
    Truncated {
        /// How long the packet is.
        length: usize,
    },
    /// Bytes follow the last field.
    #[error("the message is {expected} bytes long, the packet {length}")]
    TrailingBytes {
        /// Where the message ends.
        expected: usize,
        /// How long the packet is.
        length: usize,
    },
    /// A change has a word that no process can be given.
    #[error("the word of message kind {kind:#04x} is none that a process can be given")]
    BadWord {
        /// The second byte of the packet.
        kind: u8,
    },
    /// The packet is longer than any may be.
    #[error("a packet of {length} bytes is longer than the {MAX_PACKET} allowed")]
    Oversized {
        /// How long the packet is.
        length: usize,
    },
    /// A field holds what it must not.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// An encoded message in a buffer of its own, ready to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl Packet {
    /// Room for the longest message of this version; `every_message_fits` proves it.
    const CAPACITY: usize = 24;

    pub(crate) fn new(kind: u8) -> Self {
        let mut packet = Self { bytes: [0; Self::CAPACITY], length: 0 };
        packet.put_u8(VERSION);
        packet.put_u8(kind);
        packet
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(crate) fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    pub(crate) fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn put_i32(&mut self, value: i32) {
        self.put(&value.to_le_bytes());
    }

    fn put(&mut self, field: &[u8]) {
        let end = self.length + field.len();
        self.bytes[self.length..end].copy_from_slice(field);
        self.length = end;
    }
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Walks over one packet.
pub(crate) struct Reader<'a> {
    packet: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Checks length and version and returns the message's kind.
    pub(crate) fn open(packet: &'a [u8]) -> Result<(u8, Self), DecodeError> {
        if packet.len() > MAX_PACKET {
            return Err(DecodeError::Oversized { length: packet.len() });
        }
        let mut reader = Self { packet, position: 0 };
        let theirs = reader.u8()?;
        if theirs != VERSION {
            return Err(DecodeError::Version { ours: VERSION, theirs });
        }
        let kind = reader.u8()?;
        Ok((kind, reader))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.take()?;
        Ok(byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_le_bytes(self.take()?))
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(OutOfRange { what, value: other.into() }.into()),
        }
    }

    /// Checks that the message ended with the packet.
    pub(crate) fn close<T>(self, message: T) -> Result<T, DecodeError> {
        if self.position == self.packet.len() {
            Ok(message)
        } else {
            Err(DecodeError::TrailingBytes { expected: self.position, length: self.packet.len() })
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let field = self.packet[self.position..]
            .first_chunk::<N>()
            .ok_or(DecodeError::Truncated { length: self.packet.len() })?;
        self.position += N;
        Ok(*field)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What must hold for every message of a kind; `decode` is the type's own.
    pub(crate) fn check<T: PartialEq + std::fmt::Debug>(
        message: &T,
        packet: Packet,
        decode: fn(&[u8]) -> Result<T, DecodeError>,
    ) {
        let bytes = packet.as_bytes();
        assert_eq!(decode(bytes).as_ref(), Ok(message));
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Err(DecodeError::Truncated { length }), "{message:?}");
        }
        for garbage in [0, 1, 0xff] {
            let longer = [bytes, &[garbage]].concat();
            let expected = DecodeError::TrailingBytes { expected: bytes.len(), length: longer.len() };
            assert_eq!(decode(&longer), Err(expected), "{message:?}");
        }
        for theirs in [0, 2, 0xff] {
            let mut other = bytes.to_vec();
            other[0] = theirs;
            assert_eq!(decode(&other), Err(DecodeError::Version { ours: VERSION, theirs }));
        }
    }

    /// Kinds that are not in `known` are refused, and what is accepted has exactly one encoding.
    pub(crate) fn check_space<T>(
        known: &[u8],
        decode: fn(&[u8]) -> Result<T, DecodeError>,
        encode: fn(&T) -> Packet,
    ) {
        for kind in (0..=u8::MAX).filter(|kind| !known.contains(kind)) {
            let refused = decode(&[VERSION, kind, 0, 0, 0, 0]).err();
            assert_eq!(refused, Some(DecodeError::UnknownKind { kind }));
        }
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..400_000_usize {
            let mut bytes = [0; 20];
            for byte in &mut bytes {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Small values pass more checks and so reach deeper.
                *byte = if seed & 0x300 == 0 { seed.to_le_bytes()[0] } else { seed.to_le_bytes()[0] % 4 };
            }
            bytes[0] = VERSION;
            bytes[1] = known[round % known.len()];
            let input = &bytes[..2 + round % 19];
            if let Ok(message) = decode(input) {
                assert_eq!(encode(&message).as_bytes(), input);
            }
        }
    }

    #[test]
    fn a_packet_too_long_is_refused_before_anything_else() {
        let packet = vec![0xff; MAX_PACKET + 1];
        let refused = Reader::open(&packet).err();
        assert_eq!(refused, Some(DecodeError::Oversized { length: MAX_PACKET + 1 }));
    }
}
