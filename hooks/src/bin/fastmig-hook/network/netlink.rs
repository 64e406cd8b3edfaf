//! Messages to the kernel, as rtnetlink and nf_tables want them, and its answers.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    recv, send, setsockopt, socket, sockopt, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType,
};
use nix::sys::time::TimeVal;

// linux/netlink.h
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;
const HEADER: usize = 16;

/// The kernel answers at once.
const LIMIT: TimeVal = TimeVal::new(5, 0);

/// One message, before it is numbered.
#[derive(Debug, Clone)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request whose outcome is answered.
    pub(super) fn new(kind: u16, body: Vec<u8>) -> Self {
        Self { kind, flags: REQUEST | ACK, body }
    }

    /// One that is not answered: begin and end of a batch.
    pub(super) fn mark(kind: u16, body: Vec<u8>) -> Self {
        Self { kind, flags: REQUEST, body }
    }

    /// What is not there is made.
    pub(super) fn creating(mut self) -> Self {
        self.flags |= CREATE;
        self
    }

    /// What is there already is an error.
    pub(super) fn exclusive(mut self) -> Self {
        self.flags |= EXCLUSIVE;
        self
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.body.extend(attribute(kind, value));
        self
    }

    /// Adds an attribute that holds others.
    pub(super) fn with_nested(self, kind: u16, inner: &[Vec<u8>]) -> Self {
        self.with(kind | NESTED, &inner.concat())
    }

    fn bytes(&self, number: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes()); // to the kernel
        bytes.extend(&self.body);
        bytes
    }
}

/// An attribute, filled up to whole words.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
pub(super) fn nested(kind: u16, inner: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &inner.concat())
}

/// A text, as nf_tables has it.
pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A number, as nf_tables has it.
pub(super) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// Sends all messages at once and waits until each that asks for it is acknowledged.
///
/// # Errors
/// The first that the kernel reports.
pub(super) fn exchange(protocol: SockProtocol, messages: &[Message]) -> io::Result<()> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &LIMIT)?;
    let bytes: Vec<u8> = messages.iter().zip(1..).flat_map(|(message, n)| message.bytes(n)).collect();
    send(netlink.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut expected = messages.iter().filter(|message| message.flags & ACK != 0).count();
    let mut buffer = vec![0; 32 * 1024];
    while expected > 0 {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for errno in answers(&buffer[..length]) {
            if errno != 0 {
                return Err(io::Error::from_raw_os_error(-errno));
            }
            expected = expected.saturating_sub(1);
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The error numbers in what the kernel sent, 0 for a success.
fn answers(mut bytes: &[u8]) -> Vec<i32> {
    let mut found = Vec::new();
    while let Some(header) = bytes.get(..HEADER) {
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let length = usize::try_from(u32::from_ne_bytes(word(0))).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER) else { break };
        if u16::from_ne_bytes([header[4], header[5]]) == ERROR {
            if let Some(&[a, b, c, d]) = message.get(HEADER..HEADER + 4) {
                found.push(i32::from_ne_bytes([a, b, c, d]));
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_whole_words_and_know_their_length() {
        assert_eq!(attribute(7, &[1, 2, 3]), [7, 0, 7, 0, 1, 2, 3, 0]);
        assert_eq!(text(1, "abc"), [8, 0, 1, 0, b'a', b'b', b'c', 0]);
        assert_eq!(nested(4, &[number(1, 2)]), [12, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn every_answer_of_a_batch_is_seen_and_half_ones_are_not() {
        let answer = |errno: i32| {
            let mut bytes =
                [36_u32.to_ne_bytes().to_vec(), ERROR.to_ne_bytes().to_vec(), vec![0; 10]].concat();
            bytes.extend(errno.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        assert_eq!(answers(&[answer(0), answer(-17)].concat()), [0, -17]);
        assert_eq!(answers(&answer(-1)[..30]), [0; 0]);
        assert_eq!(answers(&[0; 64]), [0; 0]);
    }
}
