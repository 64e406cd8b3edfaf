//! The conversation with the init inside a container, over the socket that it inherited.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastmig_control::{Event, Reply, Request, MAX_PACKET};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    bind, connect, listen, recv, send, sendmsg, socket, AddressFamily, Backlog, ControlMessage, MsgFlags,
    SockFlag, SockType, UnixAddr,
};

use crate::{trace, Error, Key};

/// The socket's name in a container's directory.
const SOCKET: &str = "init.sock";

/// A socket's address is at most 107 bytes long and a container's id may be longer: the path leads through a
/// descriptor of the directory, which must stay open while the address is used.
fn address_in(directory: &Path) -> Result<(File, UnixAddr), Errno> {
    let open = File::open(directory).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let address = UnixAddr::new(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())))?;
    Ok((open, address))
}

/// Makes the socket that the init will inherit, listening in `directory`.
///
/// # Errors
/// When there is one already.
pub(crate) fn listener(directory: &Path) -> Result<OwnedFd, Error> {
    let failed = |errno: Errno| Error::io("listen in", directory, errno.into());
    let fd =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let (_open, address) = address_in(directory).map_err(failed)?;
    bind(fd.as_raw_fd(), &address).map_err(failed)?;
    listen(&fd, Backlog::new(fastmig_control::MAX_CONNECTIONS.try_into().unwrap_or(8)).map_err(failed)?)
        .map_err(failed)?;
    Ok(fd)
}

/// A connection to the init.
#[derive(Debug)]
pub(crate) struct InitClient {
    key: Key,
    socket: OwnedFd,
    limit: Duration,
}

impl InitClient {
    /// Connects to the init that listens in `directory`. Each exchange may take `limit`.
    pub(crate) fn connect(key: &Key, directory: &Path, limit: Duration) -> Result<Self, Error> {
        let broken = |errno: Errno| Error::Init { id: key.id().into(), source: errno.into() };
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map_err(broken)?;
        let (_open, address) = address_in(directory).map_err(broken)?;
        connect(socket.as_raw_fd(), &address).map_err(broken)?;
        Ok(Self { key: key.clone(), socket, limit })
    }

    /// One request, one reply; a refusal is an error.
    pub(crate) fn ask(&self, request: &Request) -> Result<Reply, Error> {
        if request.changes() {
            trace::tell("init", request.name());
        }
        self.send(request.encode().as_bytes())
    }

    /// [`InitClient::ask`] that gives a descriptor along. An init that knows nothing of it closes it.
    pub(crate) fn ask_with(&self, request: &Request, descriptor: BorrowedFd<'_>) -> Result<Reply, Error> {
        let (packet, descriptors) = (request.encode(), [descriptor.as_raw_fd()]);
        let content = [IoSlice::new(packet.as_bytes())];
        let given = [ControlMessage::ScmRights(&descriptors)];
        let sent = sendmsg::<()>(self.socket.as_raw_fd(), &content, &given, MsgFlags::MSG_NOSIGNAL, None);
        self.understood(sent.map_err(io::Error::from).and_then(|_| self.answer()))
    }

    /// [`InitClient::ask`] for a change to the command.
    pub(crate) fn change(&self, change: &[u8]) -> Result<(), Error> {
        self.send(change).map(drop)
    }

    fn send(&self, packet: &[u8]) -> Result<Reply, Error> {
        self.understood(self.exchange(packet))
    }

    fn understood(&self, reply: io::Result<Reply>) -> Result<Reply, Error> {
        match reply {
            Ok(Reply::Refused(source)) => Err(Error::Refused { id: self.key.id().into(), source }),
            Ok(reply) => Ok(reply),
            Err(source) => Err(Error::Init { id: self.key.id().into(), source }),
        }
    }

    /// The init's account of itself.
    pub(crate) fn status(&self) -> Result<fastmig_control::Status, Error> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            other => Err(self.nonsense(&other)),
        }
    }

    /// The number that was given to the process or thread that was born last in the container.
    pub(crate) fn births(&self) -> Result<u32, Error> {
        match self.ask(&Request::Births)? {
            Reply::Births { last } => Ok(last),
            other => Err(self.nonsense(&other)),
        }
    }

    /// A reply that does not belong to its request.
    pub(crate) fn nonsense(&self, reply: &Reply) -> Error {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("unexpected reply {reply:?}"));
        Error::Init { id: self.key.id().into(), source }
    }

    /// Turns the conversation into one where only the init speaks.
    pub(crate) fn subscribe(self) -> Result<Events, Error> {
        self.ask(&Request::Subscribe)?;
        Ok(Events { socket: self.socket })
    }

    fn exchange(&self, packet: &[u8]) -> io::Result<Reply> {
        send(self.socket.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL)?;
        self.answer()
    }

    fn answer(&self) -> io::Result<Reply> {
        let mut buffer = [0; MAX_PACKET];
        match receive(&self.socket, &mut buffer, Some(Instant::now() + self.limit))? {
            None => Err(io::ErrorKind::TimedOut.into()),
            Some(packet) => Reply::decode(packet).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        }
    }
}

/// What the init tells of itself.
#[derive(Debug)]
pub(crate) struct Events {
    socket: OwnedFd,
}

impl Events {
    /// The next event; none when there is none before `deadline`.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> io::Result<Option<Event>> {
        let mut buffer = [0; MAX_PACKET];
        let packet = receive(&self.socket, &mut buffer, deadline)?;
        let event = packet.map(Event::decode).transpose();
        event.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// One packet; none when there is none before `deadline`. The end of the conversation is an error.
fn receive<'a>(
    socket: &OwnedFd,
    buffer: &'a mut [u8],
    deadline: Option<Instant>,
) -> io::Result<Option<&'a [u8]>> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        // Rounded up, or the last millisecond would be spent in a loop.
        let limit = left.map(|left| left + Duration::from_millis(1));
        let limit = limit.map_or(PollTimeout::NONE, |limit| limit.try_into().unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], limit) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let length = recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(&buffer[..length]))
}
