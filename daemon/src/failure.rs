//! What the engine's failures are over HTTP.

use fastmig_api::{Code, ErrorInfo};
use fastmig_engine::{Error, Kind};

/// An engine's failure, for a client.
#[must_use]
pub fn of_engine(error: &Error) -> ErrorInfo {
    let code = match (error, error.kind()) {
        (_, Kind::NotFound) => Code::NotFound,
        (
            Error::WrongState { .. }
            | Error::Paused { .. }
            | Error::NotPaused { .. }
            | Error::PidTaken { .. },
            _,
        )
        | (_, Kind::AlreadyExists | Kind::Unavailable) => Code::WrongState,
        (_, Kind::InvalidArgument | Kind::FailedPrecondition) => Code::Refused,
        (_, Kind::DeadlineExceeded) => Code::TimeLimit,
        (_, Kind::Internal) => Code::Internal,
    };
    ErrorInfo::of(code, error)
}

/// A failure with a file or a thread of the daemon's own.
#[must_use]
pub fn internal(error: &dyn std::error::Error) -> ErrorInfo {
    ErrorInfo::of(Code::Internal, error)
}
