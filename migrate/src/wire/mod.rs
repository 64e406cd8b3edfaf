//! What is said between two hosts, and how it is written.
//!
//! Every frame names its migration, its connection, its direction and its number, so that none is taken twice, late, out of
//! order, or from another migration. Sizes are checked before anything is allocated.
//!
//! The frame's form never changes. What is in the messages has a version: whoever opens a connection says which versions it
//! speaks, the other side chooses the newest that both do, or refuses and says who has to be updated.
//!
//! | file | what it does |
//! |---|---|
//! | `frame` | a frame's head |
//! | `message` | what can be said |
//! | `version` | which protocol both speak |
//! | `channel` | frames over a connection, within time limits |

mod channel;
mod frame;
mod message;
mod version;

pub(crate) use channel::{Channel, Received};
pub(crate) use frame::{Head, HEAD};
pub(crate) use message::{Hello, Message, Purpose, Token, Verdict};
pub(crate) use version::Versions;
pub(crate) use version::{agree, SPOKEN};

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other host closed it.
    #[error("the other host closed the connection")]
    Closed,
    /// It said nothing, or took nothing.
    #[error("the other host was silent for too long")]
    Silent,
    /// The network failed.
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
    /// What arrived is no frame of this protocol.
    #[error("the other host sent what is not of this protocol: {0}")]
    Malformed(String),
    /// It is larger than anything may be.
    #[error("the other host sent {what} of {size} bytes; {most} are allowed")]
    Oversized {
        /// A message or its payload.
        what: &'static str,
        /// What was announced.
        size: u64,
        /// What is allowed.
        most: u64,
    },
    /// It belongs elsewhere.
    #[error("the other host sent a frame of {0}")]
    Foreign(&'static str),
    /// It was sent before, or one is missing.
    #[error("the other host sent frame {got} where {expected} was due: one is missing, or is sent again")]
    OutOfOrder {
        /// The number that was due.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// Something else was to come.
    #[error("the other host sent `{got}` where {expected} was due")]
    Unexpected {
        /// What came.
        got: &'static str,
        /// What was due.
        expected: &'static str,
    },
    /// Both speak different versions.
    #[error("{0}")]
    Version(String),
}
