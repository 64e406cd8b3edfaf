//! The engine's side of a connection.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use fastmig_control::{Event, ExitStatus, Pid, Refusal, Reply, Request, Signal, State, Status, MAX_PACKET};
use nix::sys::socket::{
    connect, recv, send, sendmsg, setsockopt, socket, sockopt, AddressFamily, ControlMessage, MsgFlags,
    SockFlag, SockType, UnixAddr,
};
use nix::sys::time::TimeVal;

use super::PATIENCE;

/// A connection to an init.
pub(crate) struct Client {
    socket: OwnedFd,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let limit = TimeVal::new(PATIENCE.as_secs().try_into().unwrap(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit).unwrap();
        connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        Self { socket }
    }

    /// A connection that receives events.
    pub(crate) fn subscribed(self) -> Self {
        assert_eq!(self.ask(Request::Subscribe), Reply::Ok);
        self
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        send(self.socket.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL).unwrap();
    }

    /// A request with a descriptor, which is closed here.
    pub(crate) fn ask_with(&self, request: Request, descriptor: OwnedFd) -> Reply {
        let (packet, descriptors) = (request.encode(), [descriptor.as_raw_fd()]);
        let content = [IoSlice::new(packet.as_bytes())];
        let given = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(self.socket.as_raw_fd(), &content, &given, MsgFlags::MSG_NOSIGNAL, None).unwrap();
        drop(descriptor);
        self.reply()
    }

    /// The next packet; empty when the init closed the connection.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; MAX_PACKET];
        match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => buffer[..length].to_vec(),
            Err(nix::errno::Errno::ECONNRESET) => Vec::new(),
            Err(errno) => panic!("nothing received: {errno}"),
        }
    }

    pub(crate) fn reply(&self) -> Reply {
        let packet = self.receive();
        Reply::decode(&packet).unwrap_or_else(|error| panic!("{error}: {packet:?}"))
    }

    pub(crate) fn event(&self) -> Event {
        let packet = self.receive();
        Event::decode(&packet).unwrap_or_else(|error| panic!("{error}: {packet:?}"))
    }

    pub(crate) fn ask(&self, request: Request) -> Reply {
        self.send(request.encode().as_bytes());
        self.reply()
    }

    pub(crate) fn refused(&self, request: Request) -> Refusal {
        match self.ask(request) {
            Reply::Refused(refusal) => refusal,
            other => panic!("{request:?} was answered {other:?}"),
        }
    }

    /// The state that `request` was refused in.
    pub(crate) fn wrong_state(&self, request: Request) -> State {
        match self.refused(request) {
            Refusal::WrongState(wrong) => wrong.state,
            other => panic!("{request:?} was refused: {other:?}"),
        }
    }

    pub(crate) fn prepare(&self) -> Pid {
        match self.ask(Request::Run) {
            Reply::Prepared { pid } => pid,
            other => panic!("run was answered {other:?}"),
        }
    }

    pub(crate) fn run(&self) -> Pid {
        let pid = self.prepare();
        assert_eq!(self.ask(Request::Release), Reply::Running { pid });
        pid
    }

    pub(crate) fn status(&self) -> Status {
        match self.ask(Request::Status) {
            Reply::Status(status) => status,
            other => panic!("status was answered {other:?}"),
        }
    }

    pub(crate) fn stop(&self, signal: i32) {
        let signal = Some(Signal::new(signal).unwrap());
        assert_eq!(self.ask(Request::Stop { signal }), Reply::Ok);
    }

    /// Expects an exit and the standby that follows.
    pub(crate) fn exited(&self, pid: Pid, status: ExitStatus) {
        assert_eq!(self.event(), Event::Exited { pid, status });
        assert_eq!(self.event(), Event::Standby);
    }
}
