//! Periodic timer descriptors that have expired unread, as any has whose application is frozen for long enough.
//!
//! The kernel arms such a timer again when it is read, and meanwhile tells that no time is left on it. CRIU 4.2 takes
//! that for a timer which is not armed and restores one that never rings again. It gets a nanosecond to go instead.

use std::io;
use std::path::Path;

use crate::message::{fields, messages, number_of, put_number, Content, Field, HEADER};

pub(crate) const FILES: &str = "files.img";

// file_entry and timerfd_entry of CRIU's images
const TIMER: u64 = 12;
const TICKS: u64 = 5;
const LEFT: [u64; 2] = [7, 8];
const INTERVAL: [u64; 2] = [9, 10];

/// `LEFT[1]` = 1; of two values of a field the later one counts.
const ONE_NANOSECOND: [u8; 2] = [8 << 3, 1];

/// Mends the timers in the checkpoint at `directory`.
///
/// # Errors
/// When its list of files cannot be read, understood or written.
pub fn mend_timers(directory: &Path) -> io::Result<()> {
    let path = directory.join(FILES);
    let image = std::fs::read(&path)?;
    let mended = mended(&image).ok_or(io::ErrorKind::InvalidData)?;
    if mended == image {
        return Ok(());
    }
    std::fs::write(&path, mended)
}

/// The same for an image `files.img` in memory; nothing when it is damaged.
pub(crate) fn mended(image: &[u8]) -> Option<Vec<u8>> {
    let mut result = image.get(..HEADER)?.to_vec();
    for message in messages(image)? {
        let message = mended_file(message)?;
        result.extend(u32::try_from(message.len()).ok()?.to_le_bytes());
        result.extend(message);
    }
    Some(result)
}

fn mended_file(message: &[u8]) -> Option<Vec<u8>> {
    let timer = fields(message)?.into_iter().find(|field| field.number == TIMER);
    let Some(Field { content: Content::Bytes(range), start, .. }) = timer else {
        return Some(message.to_vec());
    };
    let entry = &message[range.clone()];
    if !has_expired(&fields(entry)?) {
        return Some(message.to_vec());
    }
    let mut result = message[..start].to_vec();
    put_number(&mut result, TIMER << 3 | 2);
    put_number(&mut result, (entry.len() + ONE_NANOSECOND.len()) as u64);
    result.extend([entry, &ONE_NANOSECOND, &message[range.end..]].concat());
    Some(result)
}

/// One that was never armed, or disarmed, has no ticks.
fn has_expired(entry: &[Field]) -> bool {
    let value = |number: u64| number_of(entry, number).unwrap_or(0);
    value(TICKS) > 0 && LEFT.map(value) == [0; 2] && INTERVAL.map(value) != [0; 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timer with these ticks, time left and interval, among other fields.
    fn image(ticks: u64, left: u64, interval: u64) -> Vec<u8> {
        let mut entry = vec![0x08, 5, 0x1a, 2, 0x08, 7];
        for (number, value) in [(4, 1), (5, ticks), (6, 0), (7, 0), (8, left), (9, 0), (10, interval)] {
            put_number(&mut entry, number << 3);
            put_number(&mut entry, value);
        }
        let mut timer = vec![0x08, 19, 0x10, 3, 0x62, u8::try_from(entry.len()).unwrap()];
        timer.extend(entry);
        let other = vec![0x08, 1, 0x10, 2, 0x1a, 3, 0x0a, 1, b'x'];
        let mut image = vec![9; HEADER];
        for message in [&other, &timer, &other] {
            image.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            image.extend(message);
        }
        image
    }

    #[test]
    fn only_a_periodic_timer_that_has_expired_is_mended() {
        for (ticks, left, interval) in [(0, 0, 20_000_000), (3, 0, 0), (3, 7, 20_000_000), (0, 7, 0)] {
            let whole = image(ticks, left, interval);
            assert_eq!(mended(&whole).unwrap(), whole, "{ticks} {left} {interval}");
        }
        let (expired, armed) = (image(3, 0, 20_000_000), mended(&image(3, 0, 20_000_000)).unwrap());
        assert_eq!(armed.len(), expired.len() + ONE_NANOSECOND.len());
        // Once mended, it is like any other.
        assert_eq!(mended(&armed).unwrap(), armed);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let whole = image(3, 0, 20_000_000);
        let ends = |end: usize| mended(&whole[..end]).is_some();
        let complete: Vec<usize> = (0..=whole.len()).filter(|&end| ends(end)).collect();
        // After the header and after each message.
        assert_eq!(complete.len(), 4);
    }
}
