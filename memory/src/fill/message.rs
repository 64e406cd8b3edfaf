//! What a userfaultfd says: `struct uffd_msg`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::order::in_order;
use crate::sys;

const LENGTH: usize = 32;
/// Messages that are read at a time: threads that wait for their being heard go on then, and say more.
const MOST: usize = 64;

/// Something has happened in an address space.
#[derive(Debug)]
pub(super) enum Message {
    /// A thread waits for the page at this address.
    Fault(u64),
    /// A child was forked, which has a userfaultfd of its own.
    Fork(OwnedFd),
    /// A range was moved.
    Remap { from: u64, to: u64, length: u64 },
    /// A range was unmapped.
    Unmapped { start: u64, end: u64 },
    /// The content of a range is about to be thrown away.
    Emptied { start: u64, end: u64 },
}

/// All that is to be heard now, in the order in which it happened.
pub(super) fn batch(uffd: BorrowedFd<'_>) -> io::Result<Vec<Message>> {
    let mut bytes = [0; LENGTH * MOST];
    loop {
        match rustix::io::read(uffd, &mut bytes) {
            Ok(length) => {
                let messages =
                    bytes[..length].chunks_exact(LENGTH).filter_map(|one| parse(one.try_into().ok()?));
                return Ok(in_order(messages.collect()));
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(Vec::new()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn parse(bytes: &[u8; LENGTH]) -> Option<Message> {
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[8 + at * 8 + byte]));
    match bytes[0] {
        0x12 => Some(Message::Fault(word(1))),
        // In the lower half of the word.
        0x13 => {
            sys::received(i32::from_ne_bytes(std::array::from_fn(|byte| bytes[8 + byte]))).map(Message::Fork)
        }
        0x14 => Some(Message::Remap { from: word(0), to: word(1), length: word(2) }),
        0x15 => Some(Message::Emptied { start: word(0), end: word(1) }),
        0x16 => Some(Message::Unmapped { start: word(0), end: word(1) }),
        _ => None,
    }
}

/// A copy.
pub(super) fn copy(uffd: &OwnedFd) -> io::Result<OwnedFd> {
    uffd.as_fd().try_clone_to_owned()
}
