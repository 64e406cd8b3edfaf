//! What is said to the process that fills, over a socket that is root's alone: a length, and so many bytes. With some words a
//! descriptor goes along.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::migration::plan::Pages;

/// The most that may be said at once: what is missing of a hundred million spans.
const LONGEST: u32 = 512 << 20;

/// What is asked of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first: what is missing, and how it is fetched, in the words of whoever can.
    Begin { number: u32, owed: Vec<Pages>, errand: String },
    /// A process that misses some of it; its userfaultfd goes along.
    Add { process: i32 },
    /// All are there, and frozen.
    GoOn,
    /// It may be decided from here on that the application lives here.
    Watch,
    /// How it stands, when that is the end or after so many milliseconds.
    Wait { milliseconds: u64 },
    /// Answered when nothing is left of how memory came.
    End,
    /// What is missing does not come any more.
    Lose { reason: String },
    /// The application is gone.
    Stop,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Failed(String),
    Stands(Stands),
}

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stands {
    pub(super) bytes: u64,
    pub(super) faults: u64,
    /// All is there, or will never be: why not.
    pub(super) end: Option<Result<(), String>>,
}

pub(super) fn say<T: Serialize>(
    stream: &UnixStream,
    what: &T,
    along: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(what).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?.to_le_bytes();
    let given: Vec<_> = along.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !given.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&given));
    }
    let sent = sendmsg(stream, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut stream = stream;
    stream.write_all(&bytes)
}

/// The next word, and what came along; nothing when there is nobody any more.
pub(super) fn hear<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let along = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut stream = stream;
    stream.read_exact(&mut length[received.bytes..])?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    stream.take(length.into()).read_to_end(&mut bytes)?;
    let what = postcard::from_bytes(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((what, along)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn words_arrive_with_what_goes_along() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        say(&ours, &Request::Add { process: 7 }, Some(file.as_fd())).unwrap();
        say(&ours, &Request::Lose { reason: "x".repeat(100_000) }, None).unwrap();
        let (word, along) = hear(&theirs).unwrap().unwrap();
        assert!(matches!(word, Request::Add { process: 7 }) && along.is_some());
        let (word, along) = hear(&theirs).unwrap().unwrap();
        assert!(matches!(word, Request::Lose { reason } if reason.len() == 100_000) && along.is_none());
        (&ours).write_all(&(LONGEST + 1).to_le_bytes()).unwrap();
        assert!(hear::<Request>(&theirs).is_err());
        drop(ours);
        assert!(hear::<Request>(&theirs).unwrap().is_none());
    }
}
