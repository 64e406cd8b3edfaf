//! Why there is no good answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::{Code, ErrorInfo};

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("fastmigd is not running (nothing listens on {}): systemctl start fastmigd", place.display())]
    NotRunning {
        /// Where it should.
        place: PathBuf,
    },
    /// Whoever asks may not.
    #[error("{} is root's: call again as root", place.display())]
    NotAllowed {
        /// Where the daemon listens.
        place: PathBuf,
    },
    /// The daemon is there and says nothing.
    #[error("fastmigd at {} did not answer {call} within {} s: see journalctl -u fastmigd", place.display(), limit.as_secs())]
    Silent {
        /// What was asked.
        call: String,
        /// Where it listens.
        place: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke before the answer was whole. What was asked for may have been done: with the same idempotency
    /// key it can be asked again.
    #[error("the connection to fastmigd at {} broke during {call}, which goes on or is undone there: see journalctl -u fastmigd", place.display())]
    Broken {
        /// What was asked.
        call: String,
        /// Where it listens.
        place: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is none that this version knows.
    #[error("fastmigd at {} answered {call} with what this version does not understand ({reason}): do both have the same version?", place.display())]
    NotUnderstood {
        /// What was asked.
        call: String,
        /// Where it listens.
        place: PathBuf,
        /// What was not understood.
        reason: String,
    },
    /// The request cannot be put into words.
    #[error("nothing was sent to fastmigd at {}: {reason}", place.display())]
    Unsendable {
        /// Where it listens.
        place: PathBuf,
        /// Why.
        reason: String,
    },
    /// The daemon said why not.
    #[error("{0}")]
    Refused(Box<ErrorInfo>),
}

impl ClientError {
    pub(super) fn of(place: &Path, endpoint: Endpoint, limit: Duration, error: ureq::Error) -> Self {
        let (call, place) = (endpoint.id(), place.to_path_buf());
        match error {
            ureq::Error::Io(e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotRunning { place },
                io::ErrorKind::PermissionDenied => Self::NotAllowed { place },
                _ => Self::Broken { call, place, source: Box::new(e) },
            },
            ureq::Error::Timeout(_) => Self::Silent { call, place, limit },
            ureq::Error::Protocol(e) => Self::NotUnderstood { call, place, reason: e.to_string() },
            ureq::Error::BodyExceedsLimit(most) => {
                Self::NotUnderstood { call, place, reason: format!("more than {most} bytes") }
            }
            e => Self::Broken { call, place, source: Box::new(e) },
        }
    }

    /// The kind of error that the daemon gave, when it gave one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(info) => Some(info.code),
            _ => None,
        }
    }

    /// Whether there is no daemon to ask.
    #[must_use]
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }
}
