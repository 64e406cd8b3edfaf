//! A frame's head: which migration, connection, direction and number, and what follows. Integers are little-endian.

use super::WireError;
use crate::id::MigrationId;

/// Bytes of a head.
pub(crate) const HEAD: usize = 44;
/// The longest message: passports and lists of images.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;
/// The longest payload: a chunk of an image that did not become smaller, and its map of zero pages.
pub(crate) const MAX_PAYLOAD: usize = (1 << 20) + 4096;

const MAGIC: [u8; 4] = *b"FMig";

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source = 1,
    Destination = 2,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// What stands before each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) from: Side,
    pub(crate) id: MigrationId,
    /// 0 for the control connection, data connections from 1, questions for a decision [`u32::MAX`].
    pub(crate) lane: u32,
    /// Counts the sender's frames on this connection, from 0.
    pub(crate) number: u64,
    pub(crate) message: usize,
    pub(crate) payload: usize,
}

impl Head {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none, or announces more than is allowed.
    pub(crate) fn parse(bytes: &[u8; HEAD]) -> Result<Self, WireError> {
        let mut fields = Fields(bytes);
        if fields.take::<4>() != MAGIC {
            return Err(WireError::Malformed("it does not begin as a frame".to_owned()));
        }
        let from = match u32::from_le_bytes(fields.take()) {
            1 => Side::Source,
            2 => Side::Destination,
            _ => return Err(WireError::Malformed("a frame from neither side".to_owned())),
        };
        Ok(Self {
            from,
            id: MigrationId::from_bytes(fields.take()),
            lane: u32::from_le_bytes(fields.take()),
            number: u64::from_le_bytes(fields.take()),
            message: bounded("a message", fields.take(), MAX_MESSAGE)?,
            payload: bounded("a payload", fields.take(), MAX_PAYLOAD)?,
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(self.from as u32).to_le_bytes());
        out.extend_from_slice(&self.id.bytes());
        out.extend_from_slice(&self.lane.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        // The sender keeps to the limits, which fit.
        for size in [self.message, self.payload] {
            out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        }
    }
}

fn bounded(what: &'static str, size: [u8; 4], most: usize) -> Result<usize, WireError> {
    let size = u32::from_le_bytes(size);
    match usize::try_from(size) {
        Ok(size) if size <= most => Ok(size),
        _ => Err(WireError::Oversized { what, size: size.into(), most: most as u64 }),
    }
}

/// Fixed fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next field. The head's length is the sum of its fields, so that one is always there.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            from: Side::Destination,
            id: MigrationId::from_bytes([7; 16]),
            lane: 3,
            number: 1 << 40,
            message: 12,
            payload: MAX_PAYLOAD,
        }
    }

    fn bytes(head: &Head) -> [u8; HEAD] {
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        bytes.try_into().unwrap()
    }

    #[test]
    fn is_read_as_it_was_written() {
        assert_eq!(Head::parse(&bytes(&head())).unwrap(), head());
    }

    #[test]
    fn announces_no_more_than_is_allowed() {
        let long = bytes(&Head { payload: MAX_PAYLOAD + 1, ..head() });
        assert!(matches!(Head::parse(&long), Err(WireError::Oversized { what: "a payload", .. })));
        let long = bytes(&Head { message: MAX_MESSAGE + 1, ..head() });
        assert!(matches!(Head::parse(&long), Err(WireError::Oversized { what: "a message", .. })));
    }

    #[test]
    fn is_of_this_protocol() {
        let mut wrong = bytes(&head());
        wrong[0] = b'f';
        assert!(matches!(Head::parse(&wrong), Err(WireError::Malformed(_))));
        let mut wrong = bytes(&head());
        wrong[4] = 0;
        assert!(matches!(Head::parse(&wrong), Err(WireError::Malformed(_))));
    }
}
