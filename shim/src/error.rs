//! What can go wrong in the shim, and the ttrpc code that containerd gets for it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use containerd_shim::protos::ttrpc;
use fastmig_engine::Kind;

use crate::state::Refused;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such task in this shim.
    #[error("container not created")]
    NoContainer,
    /// No such exec process.
    #[error("process does not exist {id}")]
    NoProcess { id: String },
    /// The process has ended.
    #[error("process already finished")]
    Finished,
    /// The container has no cgroup (any more).
    #[error("cgroup does not exist")]
    NoCgroup,
    /// The id is in use.
    #[error("id {id}")]
    Taken { id: String },
    /// The state of the process does not allow it.
    #[error(transparent)]
    State(#[from] Refused),
    /// The exec process has no pid yet.
    #[error("process not created")]
    NotStarted,
    /// The container ends.
    #[error("container {id} init process is not running")]
    InitGone { id: String },
    /// A part of the request that means nothing.
    #[error("invalid {what}: {reason}")]
    Invalid { what: &'static str, reason: String },
    /// The mechanism failed. `action` is in the stock shim's words.
    #[error("{action}")]
    Engine {
        action: &'static str,
        #[source]
        source: fastmig_engine::Error,
    },
    /// Somebody was waited for in vain.
    #[error("{what} did not come within {limit:?}")]
    Deadline { what: &'static str, limit: Duration },
    /// A file operation failed.
    #[error("could not {action} {path:?}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The root file system could not be put together.
    #[error("failed to mount rootfs component")]
    Mount(#[source] containerd_shim::Error),
    /// An answer could not be put together.
    #[error("could not encode {what}")]
    Encode {
        what: &'static str,
        #[source]
        source: containerd_shim::Error,
    },
    /// A task of the shim's own broke off.
    #[error("internal task failed")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    pub(crate) fn engine(action: &'static str) -> impl FnOnce(fastmig_engine::Error) -> Self {
        move |source| Self::Engine { action, source }
    }

    /// The code that containerd's clients match on.
    pub(crate) fn code(&self) -> ttrpc::Code {
        match self {
            Self::NoContainer | Self::NoProcess { .. } | Self::Finished | Self::NoCgroup => {
                ttrpc::Code::NOT_FOUND
            }
            Self::Taken { .. } => ttrpc::Code::ALREADY_EXISTS,
            Self::NotStarted | Self::InitGone { .. } => ttrpc::Code::FAILED_PRECONDITION,
            // As in the stock shim, which has no code for a step out of turn.
            Self::State(_) => ttrpc::Code::UNKNOWN,
            Self::Invalid { .. } => ttrpc::Code::INVALID_ARGUMENT,
            Self::Engine { source: fastmig_engine::Error::Command(_), .. } => ttrpc::Code::UNKNOWN,
            Self::Engine { source, .. } => code_of(source.kind()),
            Self::Deadline { .. } => ttrpc::Code::DEADLINE_EXCEEDED,
            // As in the stock shim, which has no code for what the system refuses.
            Self::Io { .. } | Self::Mount(_) => ttrpc::Code::UNKNOWN,
            Self::Encode { .. } | Self::Panicked(_) => ttrpc::Code::INTERNAL,
        }
    }

    /// The whole chain of causes in one line.
    pub(crate) fn report(&self) -> String {
        if let Self::Engine { action, source } = self {
            return match source {
                // As in the stock shim, where runc speaks for itself.
                fastmig_engine::Error::Runc(runc) if runc.message().is_some() => {
                    format!("{action}: {}", runc.message().unwrap_or_default())
                }
                // In a warm container the engine looks for the command, in runc's place.
                fastmig_engine::Error::Command(text) => {
                    format!("{action}: runc create failed: unable to start container process: {text}")
                }
                other => format!("{action}: {}", other.report()),
            };
        }
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    }
}

/// A failure below has the code that its kind says; what runc refuses is UNKNOWN, as in the stock shim.
pub(crate) fn code_of(kind: Kind) -> ttrpc::Code {
    match kind {
        Kind::NotFound => ttrpc::Code::NOT_FOUND,
        Kind::AlreadyExists => ttrpc::Code::ALREADY_EXISTS,
        Kind::InvalidArgument => ttrpc::Code::INVALID_ARGUMENT,
        Kind::FailedPrecondition => ttrpc::Code::FAILED_PRECONDITION,
        Kind::Unavailable => ttrpc::Code::UNAVAILABLE,
        Kind::DeadlineExceeded => ttrpc::Code::DEADLINE_EXCEEDED,
        Kind::Internal => ttrpc::Code::UNKNOWN,
    }
}

/// What containerd's own errors of this code end with; some of its clients show the text alone.
fn suffix(code: ttrpc::Code) -> Option<&'static str> {
    match code {
        ttrpc::Code::NOT_FOUND => Some("not found"),
        ttrpc::Code::ALREADY_EXISTS => Some("already exists"),
        ttrpc::Code::INVALID_ARGUMENT => Some("invalid argument"),
        ttrpc::Code::FAILED_PRECONDITION => Some("failed precondition"),
        ttrpc::Code::UNAVAILABLE => Some("unavailable"),
        _ => None,
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        let code = error.code();
        let text = match suffix(code) {
            Some(suffix) => format!("{}: {suffix}", error.report()),
            None => error.report(),
        };
        Self::RpcStatus(ttrpc::get_status(code, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{State, Step};
    use containerd_shim::Error as Crate;

    fn code(error: Error) -> ttrpc::Code {
        match ttrpc::Error::from(error) {
            ttrpc::Error::RpcStatus(status) => status.code(),
            other => panic!("not a status: {other:?}"),
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(code(Error::NoContainer), ttrpc::Code::NOT_FOUND);
        assert_eq!(code(Error::NoProcess { id: "e".into() }), ttrpc::Code::NOT_FOUND);
        assert_eq!(code(Error::Finished), ttrpc::Code::NOT_FOUND);
        assert_eq!(code(Error::NoCgroup), ttrpc::Code::NOT_FOUND);
    }

    #[test]
    fn an_id_in_use_already_exists() {
        assert_eq!(code(Error::Taken { id: "e".into() }), ttrpc::Code::ALREADY_EXISTS);
    }

    #[test]
    fn a_step_out_of_turn_is_unknown() {
        let refused = State::Running.after(Step::Delete).unwrap_err();
        assert_eq!(code(refused.into()), ttrpc::Code::UNKNOWN);
    }

    #[test]
    fn a_process_that_is_not_there_yet_or_any_more_is_a_failed_precondition() {
        assert_eq!(code(Error::NotStarted), ttrpc::Code::FAILED_PRECONDITION);
        assert_eq!(code(Error::InitGone { id: "c".into() }), ttrpc::Code::FAILED_PRECONDITION);
    }

    #[test]
    fn nonsense_is_an_invalid_argument() {
        let error = Error::Invalid { what: "options", reason: "not ours".into() };
        assert_eq!(code(error), ttrpc::Code::INVALID_ARGUMENT);
    }

    #[test]
    fn a_limit_is_a_deadline() {
        let error = Error::Deadline { what: "the terminal", limit: Duration::from_secs(1) };
        assert_eq!(code(error), ttrpc::Code::DEADLINE_EXCEEDED);
    }

    #[test]
    fn what_the_system_refuses_is_unknown() {
        assert_eq!(code(Error::io("open", "/x", io::ErrorKind::NotFound.into())), ttrpc::Code::UNKNOWN);
        assert_eq!(code(Error::Mount(Crate::Other("no".into()))), ttrpc::Code::UNKNOWN);
    }

    #[test]
    fn our_own_faults_are_internal() {
        let error = Error::Encode { what: "metrics", source: Crate::Other("no".into()) };
        assert_eq!(code(error), ttrpc::Code::INTERNAL);
    }

    #[test]
    fn every_kind_of_the_engine_has_its_code() {
        let codes = [
            (Kind::NotFound, ttrpc::Code::NOT_FOUND),
            (Kind::AlreadyExists, ttrpc::Code::ALREADY_EXISTS),
            (Kind::InvalidArgument, ttrpc::Code::INVALID_ARGUMENT),
            (Kind::FailedPrecondition, ttrpc::Code::FAILED_PRECONDITION),
            (Kind::Unavailable, ttrpc::Code::UNAVAILABLE),
            (Kind::DeadlineExceeded, ttrpc::Code::DEADLINE_EXCEEDED),
            (Kind::Internal, ttrpc::Code::UNKNOWN),
        ];
        for (kind, code) in codes {
            assert_eq!(code_of(kind), code, "{kind:?}");
        }
    }

    #[test]
    fn a_missing_command_reads_as_if_runc_had_looked_for_it() {
        let source =
            fastmig_engine::Error::Command(r#"exec: "x": executable file not found in $PATH"#.into());
        let error = Error::Engine { action: "OCI runtime create failed", source };
        assert_eq!(
            error.report(),
            "OCI runtime create failed: runc create failed: unable to start container process: \
             exec: \"x\": executable file not found in $PATH"
        );
        assert_eq!(code(error), ttrpc::Code::UNKNOWN);
    }

    #[test]
    fn the_text_ends_as_containerds_own() {
        let ttrpc::Error::RpcStatus(status) = ttrpc::Error::from(Error::Finished) else { panic!() };
        assert_eq!(status.message(), "process already finished: not found");
    }

    #[test]
    fn a_report_holds_the_whole_chain() {
        let error = Error::io("open", "/x", io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.report(), "could not open \"/x\": No such file or directory (os error 2)");
    }
}
