//! What FastMig's init and its engine say to each other: the messages, their bytes, and the application's states.
//!
//! This crate opens no socket and asks the kernel nothing; both sides bring their own I/O.
//!
//! # Transport
//!
//! The init inherits a listening `AF_UNIX` `SOCK_SEQPACKET` socket as descriptor [`CONTROL_FD`]. The engine connects
//! to it from the host. One packet is one message of at most [`MAX_PACKET`] bytes. On each connection the engine
//! sends a [`Request`] and receives one [`Reply`]. After [`Request::Subscribe`] was answered, the connection carries
//! only [`Event`]s; a subscriber that speaks or does not read is dropped.
//!
//! # Bytes
//!
//! Byte 0 is [`VERSION`], byte 1 the kind of message; fixed fields follow, little-endian, without padding. Requests,
//! replies and events take their kinds from ranges of their own, and 0 is never a kind or a variant. A message has
//! exactly one encoding: decoding refuses another version, an unknown kind, missing or trailing bytes and values out
//! of range.
//!
//! ```
//! use fastmig_control::{Request, Signal};
//!
//! let request = Request::Signal { signal: Signal::new(15)? };
//! let packet = request.encode();
//! assert_eq!(packet.as_bytes(), [1, 0x0a, 15]);
//! assert_eq!(Request::decode(packet.as_bytes())?, request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod change;
mod event;
mod reply;
mod request;
mod state;
mod values;
mod wire;

pub use change::{Change, MAX_CHANGES, MAX_WORD};
pub use event::Event;
pub use reply::{Account, ExecFailure, ExecStep, Refusal, Reply, Status};
pub use request::Request;
pub use state::{State, WrongState};
pub use values::{Errno, ExitStatus, Pid, Policy, Signal};
pub use wire::{DecodeError, OutOfRange, Packet};

/// The version of the protocol: the first byte of every message.
pub const VERSION: u8 = 1;

/// The longest packet that either side may send. Longer ones are refused unread.
pub const MAX_PACKET: usize = 4096;

/// How many connections the init serves at once; further ones are answered [`Refusal::Busy`] and closed.
pub const MAX_CONNECTIONS: usize = 8;

/// The descriptor under which the init inherits the listening socket, where its container keeps none of its
/// creator's; otherwise the one after those.
pub const CONTROL_FD: i32 = 3;

/// The read-only directory of the container that holds what FastMig needs inside it.
pub const RUNTIME_DIR: &str = "/dev/.fastmig";

/// The init as the container sees it.
pub const INIT_PATH: &str = "/dev/.fastmig/fastmig-init";

/// The exit code of an init that could not start at all (wrong arguments, not PID 1, no control socket).
pub const EXIT_INIT_FAILED: u8 = 125;
