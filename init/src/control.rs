//! The control socket's connections: bounded in number, never waited for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use fastmig_control::{
    Change, DecodeError, Event, Refusal, Reply, Request, MAX_CONNECTIONS, MAX_PACKET, VERSION,
};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
use nix::sys::socket::{
    getsockname, getsockopt, recv, send, shutdown, sockopt, AddressFamily, MsgFlags, Shutdown, SockType,
    SockaddrLike, SockaddrStorage,
};

use crate::changes::Kept;
use crate::sys;

/// Why a descriptor cannot be the control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("descriptor {fd} is not open: {errno}")]
    NotOpen { fd: RawFd, errno: Errno },
    #[error("descriptor {fd} is not a listening SOCK_SEQPACKET unix socket")]
    NotListener { fd: RawFd },
    #[error("cannot set up descriptor {fd}: {errno}")]
    SetUp { fd: RawFd, errno: Errno },
}

/// A connection's place in the table. It means nothing after the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// Whose turn it is on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The engine may ask.
    Engine,
    /// The init owes an answer.
    Init,
    /// The init tells events.
    Events,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    turn: Turn,
}

/// What came in on a connection.
pub(crate) enum Incoming {
    /// A request to be answered, and the descriptor that came with it.
    Request(Request, Option<OwnedFd>),
    /// A change to the command, to be answered.
    Change(Kept),
    /// The connection is no more.
    Closed,
    /// Nothing.
    Nothing,
}

/// The listener and its connections.
#[derive(Debug)]
pub(crate) struct Connections {
    listener: OwnedFd,
    /// False while descriptors are short: a listener that stays readable would make the loop spin.
    accepting: bool,
    table: [Option<Connection>; MAX_CONNECTIONS],
}

impl Connections {
    /// Takes the inherited listener.
    pub(crate) fn listen_on(fd: RawFd) -> Result<Self, ControlError> {
        let listener = sys::take_descriptor(fd).map_err(|errno| ControlError::NotOpen { fd, errno })?;
        if !is_listener(&listener) {
            return Err(ControlError::NotListener { fd });
        }
        let set_up = |errno| ControlError::SetUp { fd, errno };
        fcntl(&listener, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(set_up)?;
        fcntl(&listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(set_up)?;
        Ok(Self { listener, accepting: true, table: [const { None }; MAX_CONNECTIONS] })
    }

    /// The listener, when a connection could be accepted.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.accepting.then(|| self.listener.as_fd())
    }

    /// The open connections.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (Slot, BorrowedFd<'_>)> {
        let open = self.table.iter().enumerate();
        open.filter_map(|(index, entry)| Some((Slot(index), entry.as_ref()?.socket.as_fd())))
    }

    /// Every descriptor in here.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let listener = std::iter::once(self.listener.as_raw_fd());
        listener.chain(self.sockets().map(|(_, socket)| socket.as_raw_fd())).collect()
    }

    /// Accepts one connection, or answers that there are too many.
    pub(crate) fn accept(&mut self) {
        let socket = match sys::accept(&self.listener) {
            Ok(socket) => socket,
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => {
                self.accepting = false;
                return;
            }
            // The peer is gone again.
            Err(_) => return,
        };
        match self.table.iter_mut().find(|entry| entry.is_none()) {
            Some(free) => *free = Some(Connection { socket, turn: Turn::Engine }),
            None => {
                let _ = transmit(&socket, Reply::Refused(Refusal::Busy).encode().as_bytes());
                // Closing over an unread request would reset the connection and hide the answer.
                let _ = recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
            }
        }
    }

    /// Reads from a connection that has something to read. What is not a request in its turn closes it.
    pub(crate) fn receive(&mut self, slot: Slot) -> Incoming {
        let Some(connection) = &mut self.table[slot.0] else { return Incoming::Nothing };
        // Nothing is that long.
        let mut buffer = [0; MAX_PACKET + 1];
        let (length, descriptor) = match sys::receive(connection.socket.as_fd(), &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Incoming::Nothing,
            Ok((0, _)) | Err(_) => return self.close(slot),
            Ok((length, descriptor)) => (length.min(buffer.len()), descriptor),
        };
        if connection.turn != Turn::Engine {
            return self.refuse(slot, Refusal::OutOfTurn);
        }
        if let Some(change) = Change::decode(&buffer[..length]) {
            let Some(change) = change.ok().and_then(Kept::of) else {
                return self.refuse(slot, Refusal::Malformed);
            };
            connection.turn = Turn::Init;
            return Incoming::Change(change);
        }
        match Request::decode(&buffer[..length]) {
            Ok(request) => {
                connection.turn = Turn::Init;
                Incoming::Request(request, descriptor)
            }
            Err(DecodeError::Version { .. }) => self.refuse(slot, Refusal::VersionMismatch { ours: VERSION }),
            Err(_) => self.refuse(slot, Refusal::Malformed),
        }
    }

    /// Answers a request. False when the connection broke and is closed.
    #[must_use]
    pub(crate) fn reply(&mut self, slot: Slot, reply: Reply) -> bool {
        self.send(slot, reply, Turn::Engine)
    }

    /// Answers a subscription: from now on the connection receives events.
    #[must_use]
    pub(crate) fn subscribe(&mut self, slot: Slot) -> bool {
        self.send(slot, Reply::Ok, Turn::Events)
    }

    /// Tells every subscriber; who cannot take it is dropped.
    pub(crate) fn publish(&self, event: Event) {
        let packet = event.encode();
        for subscriber in self.table.iter().flatten().filter(|connection| connection.turn == Turn::Events) {
            if transmit(&subscriber.socket, packet.as_bytes()).is_err() {
                // Comes back as a closed connection, as if the peer had done it.
                let _ = shutdown(subscriber.socket.as_raw_fd(), Shutdown::Both);
            }
        }
    }

    fn send(&mut self, slot: Slot, reply: Reply, next: Turn) -> bool {
        let Some(connection) = &mut self.table[slot.0] else { return false };
        connection.turn = next;
        let sent = transmit(&connection.socket, reply.encode().as_bytes()).is_ok();
        if !sent {
            self.close(slot);
        }
        sent
    }

    fn refuse(&mut self, slot: Slot, refusal: Refusal) -> Incoming {
        let _ = self.send(slot, Reply::Refused(refusal), Turn::Engine);
        self.close(slot)
    }

    fn close(&mut self, slot: Slot) -> Incoming {
        self.table[slot.0] = None;
        self.accepting = true;
        Incoming::Closed
    }
}

/// Sends a packet if the peer has room for it.
fn transmit(socket: &OwnedFd, packet: &[u8]) -> nix::Result<()> {
    send(socket.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).map(drop)
}

fn is_listener(socket: &OwnedFd) -> bool {
    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|address| address.family());
    getsockopt(socket, sockopt::AcceptConn) == Ok(true)
        && getsockopt(socket, sockopt::SockType) == Ok(SockType::SeqPacket)
        && family == Some(AddressFamily::Unix)
}
