//! Messages of protocol buffers, as far as images need to be looked into: their fields, without a description of them.

use std::ops::Range;

/// The magic numbers that an image begins with; messages with their lengths before them follow.
pub(crate) const HEADER: usize = 8;

pub(crate) struct Field {
    pub(crate) number: u64,
    pub(crate) start: usize,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Number(u64),
    Bytes(Range<usize>),
}

/// The fields of a protocol buffers message; nothing when it is none.
pub(crate) fn fields(message: &[u8]) -> Option<Vec<Field>> {
    let (mut fields, mut at) = (Vec::new(), 0);
    while at < message.len() {
        let start = at;
        let tag = number(message, &mut at)?;
        let content = match tag & 7 {
            0 => Content::Number(number(message, &mut at)?),
            kind => {
                let length = match kind {
                    1 => 8,
                    2 => usize::try_from(number(message, &mut at)?).ok()?,
                    5 => 4,
                    _ => return None,
                };
                let range = at..at.checked_add(length)?;
                message.get(range.clone())?;
                at = range.end;
                Content::Bytes(range)
            }
        };
        fields.push(Field { number: tag >> 3, start, content });
    }
    Some(fields)
}

fn number(message: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn put_number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or(0));
}

/// A field that is a message or text.
pub(crate) fn put_bytes(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_number(message, field << 3 | 2);
    put_number(message, bytes.len() as u64);
    message.extend(bytes);
}

/// The messages of an image, after its magic numbers; nothing when it is cut short.
pub(crate) fn messages(image: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = image.get(HEADER..)?;
    let mut found = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        found.push(tail.get(..length)?);
        rest = &tail[length..];
    }
    rest.is_empty().then_some(found)
}

/// The last value of a numeric field, for of several the last counts.
pub(crate) fn number_of(fields: &[Field], number: u64) -> Option<u64> {
    fields.iter().rev().find(|field| field.number == number).and_then(|field| match field.content {
        Content::Number(value) => Some(value),
        Content::Bytes(_) => None,
    })
}
