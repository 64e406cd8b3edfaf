//! What images say of the clock that goes on from the kernel's start.

use std::time::Duration;

use crate::message::{fields, messages, number_of, Content};

/// The image that has the clocks of an application without a time namespace of its own.
pub const CLOCKS: &str = "timens-0.img";

// Fields of CRIU's images.
const MONOTONIC: u64 = 1;
const SECONDS: u64 = 1;
const NANOSECONDS: u64 = 2;

/// `CLOCK_MONOTONIC` when [`CLOCKS`] was written; nothing when it is damaged.
#[must_use]
pub fn monotonic(image: &[u8]) -> Option<Duration> {
    let message = *messages(image)?.first()?;
    let clock = fields(message)?.into_iter().find_map(|field| match field.content {
        Content::Bytes(range) if field.number == MONOTONIC => message.get(range),
        _ => None,
    })?;
    let clock = fields(clock)?;
    let nanoseconds = u32::try_from(number_of(&clock, NANOSECONDS)?).ok().filter(|n| *n < 1_000_000_000)?;
    Some(Duration::new(number_of(&clock, SECONDS)?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_an_image_is_read() {
        let image = |message: &[u8]| {
            let length = u32::try_from(message.len()).unwrap().to_le_bytes();
            [&[0; 8][..], &length, message].concat()
        };
        let whole = image(&[0x0a, 4, 8, 7, 16, 9, 0x12, 4, 8, 1, 16, 1]);
        assert_eq!(monotonic(&whole), Some(Duration::new(7, 9)));
        assert_eq!(monotonic(&image(&[0x12, 4, 8, 1, 16, 1])), None);
        assert_eq!(monotonic(&whole[..15]), None);
        assert_eq!(monotonic(&[]), None);
    }
}
