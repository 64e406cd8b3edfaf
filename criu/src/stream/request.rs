//! What CRIU's streamer client asks for (`img-streamer.proto`): a file's name, and then one end of a pipe for its content.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::message::{fields, Content};

/// A file name in a small message.
const LARGEST: usize = 4096 + 16;

/// `img_streamer_request_entry.filename`, `img_streamer_reply_entry.exists`
const FIRST: u64 = 1;

/// Reads the next request; nothing when CRIU asks for no more.
pub(crate) fn read_name(socket: &mut UnixStream) -> io::Result<Option<String>> {
    let mut length = [0; 4];
    match socket.read(&mut length)? {
        0 => return Ok(None),
        count => socket.read_exact(&mut length[count..])?,
    }
    let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX);
    if length > LARGEST {
        return Err(nonsense("a request that is too long"));
    }
    let mut message = vec![0; length];
    socket.read_exact(&mut message)?;
    name_in(&message).map(Some).ok_or_else(|| nonsense("a request without a file name"))
}

fn name_in(message: &[u8]) -> Option<String> {
    let name = fields(message)?.into_iter().find_map(|field| match field.content {
        Content::Bytes(range) if field.number == FIRST => Some(range),
        _ => None,
    })?;
    let name = std::str::from_utf8(&message[name]).ok()?;
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// Answers whether the file exists.
pub(crate) fn answer(socket: &mut UnixStream, exists: bool) -> io::Result<()> {
    let message = [u8::try_from(FIRST << 3).unwrap_or_default(), u8::from(exists)];
    let length = u32::try_from(message.len()).unwrap_or_default().to_ne_bytes();
    socket.write_all(&[&length[..], &message].concat())
}

/// Receives the pipe's end; it comes with one byte of no meaning.
pub(crate) fn read_pipe(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| nonsense("no pipe where one belongs"))
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("CRIU sent {what}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    /// As CRIU asks.
    pub(crate) fn ask(socket: &mut UnixStream, name: &str) {
        let mut message = vec![0x0a, u8::try_from(name.len()).unwrap()];
        message.extend(name.as_bytes());
        let length = u32::try_from(message.len()).unwrap().to_ne_bytes();
        socket.write_all(&[&length[..], &message].concat()).unwrap();
    }

    /// As CRIU sends the end of a pipe.
    pub(crate) fn give(socket: &UnixStream, pipe: impl AsFd) {
        let fds = [pipe.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for (name, fine) in [("core-1.img", true), ("../x", false), ("", false)] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            ask(&mut theirs, name);
            assert_eq!(read_name(&mut ours).is_ok(), fine, "{name}");
        }
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[0xff; 8]).unwrap();
        assert!(read_name(&mut ours).is_err());
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(read_name(&mut ours).unwrap(), None);
    }
}
