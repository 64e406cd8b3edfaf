//! What images say of who a thread is.

use crate::message::{fields, messages, put_bytes, put_number, Content, HEADER};

// Fields of CRIU's images.
const THREAD: u64 = 5;
const CREDENTIALS: u64 = 10;
const BOUNDING: u64 = 12;

/// Whether an image says who a thread is.
#[must_use]
pub fn is_core(image: &str) -> bool {
    image.starts_with("core-") && image.ends_with(".img")
}

/// The image of a thread, with `bounding` for its bounding set (bit n = capability n); nothing when it is damaged.
#[must_use]
pub fn with_bounding_set(image: &[u8], bounding: u64) -> Option<Vec<u8>> {
    let mut mended = image.get(..HEADER)?.to_vec();
    for message in messages(image)? {
        let message =
            within(message, THREAD, &|thread| within(thread, CREDENTIALS, &|creds| bound(creds, bounding)))?;
        mended.extend(u32::try_from(message.len()).ok()?.to_le_bytes());
        mended.extend(message);
    }
    Some(mended)
}

/// A message with each message in its field `number` changed.
fn within(message: &[u8], number: u64, change: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let (mut changed, mut from) = (Vec::with_capacity(message.len()), 0);
    for field in fields(message)?.into_iter().filter(|field| field.number == number) {
        let Content::Bytes(range) = field.content else { return None };
        changed.extend(&message[from..field.start]);
        put_bytes(&mut changed, number, &change(&message[range.clone()])?);
        from = range.end;
    }
    changed.extend(&message[from..]);
    Some(changed)
}

/// Credentials with another bounding set, in two numbers of 32 bits.
fn bound(creds: &[u8], bounding: u64) -> Option<Vec<u8>> {
    let fields = fields(creds)?;
    let mut changed = Vec::with_capacity(creds.len() + 16);
    for (place, field) in fields.iter().enumerate().filter(|(_, field)| field.number != BOUNDING) {
        let end = fields.get(place + 1).map_or(creds.len(), |next| next.start);
        changed.extend(&creds[field.start..end]);
    }
    for half in [bounding & 0xffff_ffff, bounding >> 32] {
        put_number(&mut changed, BOUNDING << 3);
        put_number(&mut changed, half);
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_alone_is_another_one() {
        let mut creds = Vec::new();
        for (field, value) in [(1, 1000), (BOUNDING, 7), (11, 5), (BOUNDING, 9), (13, 1)] {
            put_number(&mut creds, field << 3);
            put_number(&mut creds, value);
        }
        let image = |creds: &[u8]| {
            let (mut thread, mut message) = (vec![8, 1], vec![8, 2]);
            put_bytes(&mut thread, CREDENTIALS, creds);
            thread.extend([0x58, 0]);
            put_bytes(&mut message, THREAD, &thread);
            let length = u32::try_from(message.len()).unwrap().to_le_bytes();
            [&[0; HEADER][..], &length, &message].concat()
        };
        let mut wanted = vec![8, 0xe8, 7, 0x58, 5, 0x68, 1];
        for half in [u64::from(u32::MAX), 1] {
            put_number(&mut wanted, BOUNDING << 3);
            put_number(&mut wanted, half);
        }
        assert_eq!(with_bounding_set(&image(&creds), 0x1_ffff_ffff), Some(image(&wanted)));
        assert_eq!(with_bounding_set(&image(&creds)[..20], 0), None);
        assert!(is_core("core-7.img") && !is_core("fs-7.img"));
    }
}
