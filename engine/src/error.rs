//! What can go wrong with a container, and what each failure means to a caller.

use std::io;
use std::path::{Path, PathBuf};

use fastmig_control::Refusal;
use fastmig_criu::view::ViewError;
use fastmig_criu::{BundleError, CriuError, LaunchError};
use fastmig_policy::RulesError;

use crate::config::ConfigError;
use crate::image::ImageError;
use crate::passport::{PassportError, Reasons};
use crate::runc::RuncError;
use crate::spec::SpecError;
use crate::state::ApplicationState;

/// A failed operation on a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container that waits may not hold what comes.
    #[error(
        "the application has {} MiB of memory and container {id} here may hold {} MiB more; raise its memory limit",
        .needed.div_ceil(1 << 20), .left >> 20
    )]
    TooLittleMemory {
        /// The container.
        id: String,
        /// Bytes that come.
        needed: u64,
        /// Bytes that there is room for.
        left: u64,
    },
    /// What the application writes cannot be followed.
    #[error(
        "the memory of the application of {id} cannot be tracked; it can move with --strategy stop-copy"
    )]
    Untracked {
        /// The container.
        id: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was restored is not what stood still at the source.
    #[error(
        "the memory of process {process} differs from the source's: {exact} pages that travelled in rounds and {others} of \
         CRIU's ({pages}); please report this, and move with --strategy stop-copy"
    )]
    Differs {
        /// The process, as its container counts it.
        process: i32,
        /// Pages that travelled in rounds.
        exact: usize,
        /// Others, beyond what the kernel itself writes.
        others: usize,
        /// The first of them.
        pages: String,
    },
    /// CRIU was not shown memory as it should be.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The id or namespace cannot name a container.
    #[error("{value:?} is not a usable container {what}: letters, digits and _ + - . only, at most 128")]
    BadName {
        /// `id` or `namespace`.
        what: &'static str,
        /// What was given.
        value: String,
    },
    /// No such container is known to FastMig.
    #[error("container {id:?} not found")]
    NotFound {
        /// The container.
        id: String,
    },
    /// The id is taken.
    #[error("container {id:?} already exists")]
    AlreadyExists {
        /// The container.
        id: String,
    },
    /// The container was left to runc as it was, so its application cannot be taken out of it.
    #[error("container {id:?} is not under FastMig's init: {reason}")]
    NotWarm {
        /// The container.
        id: String,
        /// Why it was left alone.
        reason: String,
    },
    /// The application is in another state than the operation needs.
    #[error("cannot {action} container {id:?}: its application is {state}")]
    WrongState {
        /// The container.
        id: String,
        /// The operation.
        action: &'static str,
        /// What the application is doing.
        state: ApplicationState,
    },
    /// The container is paused.
    #[error("cannot {action} container {id:?} while it is paused: resume it first")]
    Paused {
        /// The container.
        id: String,
        /// The operation.
        action: &'static str,
    },
    /// The container is not paused.
    #[error("cannot resume container {id:?}: it is not paused")]
    NotPaused {
        /// The container.
        id: String,
    },
    /// It is an end of a migration whose outcome is not known yet.
    #[error(
        "container {id:?} waits for the outcome of migration {migration}: fastmigd settles it with the other host \
         as soon as both daemons run"
    )]
    Migrating {
        /// The container.
        id: String,
        /// The migration.
        migration: String,
    },
    /// A step of a migration was asked for before the one that it needs.
    #[error("cannot {action} container {id:?} yet: a step before is missing")]
    OutOfTurn {
        /// The container.
        id: String,
        /// The step.
        action: &'static str,
    },
    /// Memory that was to follow a restored application does not come. The application was ended.
    #[error("the memory of checkpoint {path:?} does not come: {reason}; the application in container {id:?} was ended, which is in standby: restore another checkpoint")]
    MemoryLost {
        /// The container.
        id: String,
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The memory of a checkpoint that CRIU has written cannot follow.
    #[error("checkpoint {path:?} was not taken in rounds, and its memory cannot follow a running application; restore it without --lazy-pages")]
    NotInRounds {
        /// The checkpoint.
        path: PathBuf,
    },
    /// What was restored and held is not there any more, or not held.
    #[error("what arrived in container {id:?} was killed or thawed before it was to run; see in the kernel's log whether memory ran out, leave the container alone while it waits, and migrate again")]
    Lost {
        /// The container.
        id: String,
    },
    /// Another operation held the container for too long.
    #[error("container {id:?} is busy with another operation: try again when it is done")]
    Busy {
        /// The container.
        id: String,
    },
    /// The application did not freeze.
    #[error("the application of {id:?} did not freeze within the limit: look for processes in state D")]
    NotFrozen {
        /// The container.
        id: String,
    },
    /// A process is stopped by a signal where CRIU cannot take it over.
    #[error("process {pid} of the application of {id:?} is stopped (SIGSTOP, Ctrl-Z), and frozen by cgroup v1 CRIU would wait for it for ever: let it go on (kill -CONT {pid}) and try again")]
    Stopped {
        /// The container.
        id: String,
        /// The process, as the host counts it.
        pid: i32,
    },
    /// A pid that the restore needs is taken in the container.
    #[error("cannot restore into {id:?}: pid {pid} is taken there by {command:?}; end that process (an exec session?) and try again")]
    PidTaken {
        /// The container.
        id: String,
        /// The pid inside the container.
        pid: i32,
        /// The process that has it.
        command: String,
    },
    /// A process of the application is not below its root: a checkpoint would forget it.
    #[error("cannot checkpoint {id:?}: {command:?} belongs to the application but has left its process tree; end it and try again")]
    Astray {
        /// The container.
        id: String,
        /// The process.
        command: String,
    },
    /// A restored process has what the container would not have given it.
    #[error("the checkpoint gives {command:?} more than container {id:?} allows: {what}")]
    TooPrivileged {
        /// The container.
        id: String,
        /// The process.
        command: String,
        /// What it has.
        what: String,
    },
    /// A restored process would run without its container's seccomp filter.
    #[error("the checkpoint does not fit to container {id:?}: {wrong}; save the application once more")]
    OtherFilter {
        /// The container.
        id: String,
        /// The image at fault.
        wrong: fastmig_criu::seccomp::Wrong,
    },
    /// What only a privileged CRIU could do.
    #[error(
        "CRIU works inside container {id:?} here ([confinement] mode = \"in-container\") and cannot {what}: {remedy}"
    )]
    NotFromInside {
        /// The container.
        id: String,
        /// What it cannot do.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The application would lose what it has.
    #[error(
        "the application holds {missing}, and container {id:?} does not allow that: create the container with it \
         (--cap-add), or the application's own without it (--cap-drop)"
    )]
    LacksCapabilities {
        /// The container.
        id: String,
        /// What it does not allow.
        missing: String,
    },
    /// The application cannot go to another host as it is.
    #[error("the application of {id:?} cannot move: {reasons}")]
    CannotLeave {
        /// The container.
        id: String,
        /// All that was found.
        reasons: Reasons,
    },
    /// What should be a passport is none.
    #[error(transparent)]
    Passport(#[from] PassportError),
    /// The container's policy is not there, or wrong.
    #[error(transparent)]
    Policy(#[from] RulesError),
    /// There is no such checkpoint of the container.
    #[error("there is no checkpoint {wanted:?} of container {id:?}; fastmig checkpoint takes one")]
    NoCheckpoint {
        /// The container.
        id: String,
        /// Its name, or `latest`.
        wanted: String,
    },
    /// The container's command is not there or cannot be executed.
    #[error("{0}")]
    Command(String),
    /// An annotation has a value that means nothing.
    #[error("annotation {key} has the value {value:?}: {expected}")]
    BadAnnotation {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The operator's file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The container's own files are not what this version writes.
    #[error("the state of container {id:?} in {path:?} is damaged")]
    State {
        /// The container.
        id: String,
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// The init refused.
    #[error("the init of container {id:?} refused")]
    Refused {
        /// The container.
        id: String,
        /// Why.
        source: Refusal,
    },
    /// The conversation with the init broke.
    #[error("no answer from the init of container {id:?}")]
    Init {
        /// The container.
        id: String,
        /// What the system said.
        source: io::Error,
    },
    /// The spec cannot be rewritten.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// runc failed.
    #[error(transparent)]
    Runc(#[from] RuncError),
    /// CRIU failed.
    #[error(transparent)]
    Criu(#[from] CriuError),
    /// CRIU could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// FastMig's runtime directory is incomplete.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The checkpoint is missing, damaged or does not fit.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The files of the root file system could not be packed or put back.
    #[error("the files of the container's root file system cannot travel")]
    RootFiles(#[from] fastmig_rootfs::Error),
    /// One of the operator's commands around an operation failed.
    #[error(transparent)]
    Hook(Box<dyn std::error::Error + Send + Sync>),
    /// A file operation failed.
    #[error("could not {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A full disk is not this operation's fault alone.
fn with_remedy(error: io::Error) -> io::Error {
    let cause = match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full",
        io::ErrorKind::QuotaExceeded => "the disk quota is used up",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{cause}; free space where it is written ({error})"))
}

/// What a failure means to a caller, in the terms of the interfaces above (ttrpc, HTTP, exit codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is nothing of that name.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The request cannot ever work.
    InvalidArgument,
    /// The request can work in another state.
    FailedPrecondition,
    /// Someone else is at it; try again.
    Unavailable,
    /// A limit was exceeded.
    DeadlineExceeded,
    /// Something below failed.
    Internal,
}

impl Error {
    /// A failure with a stream or a process of the caller's own.
    #[must_use]
    pub fn stdio(action: &'static str, source: io::Error) -> Self {
        Self::Io { action, path: "/proc/self".into(), source }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source: with_remedy(source) }
    }

    /// What this failure means to a caller.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::NoCheckpoint { .. } => Kind::NotFound,
            Self::AlreadyExists { .. } => Kind::AlreadyExists,
            Self::BadName { .. }
            | Self::BadAnnotation { .. }
            | Self::Passport(_)
            | Self::Config(_)
            | Self::Policy(_)
            | Self::Spec(_)
            | Self::Command(_) => Kind::InvalidArgument,
            Self::NotWarm { .. }
            | Self::WrongState { .. }
            | Self::Paused { .. }
            | Self::NotPaused { .. }
            | Self::Migrating { .. }
            | Self::OutOfTurn { .. }
            | Self::Lost { .. }
            | Self::MemoryLost { .. }
            | Self::NotInRounds { .. }
            | Self::PidTaken { .. }
            | Self::Stopped { .. }
            | Self::Astray { .. }
            | Self::TooPrivileged { .. }
            | Self::OtherFilter { .. }
            | Self::NotFromInside { .. }
            | Self::LacksCapabilities { .. }
            | Self::Untracked { .. }
            | Self::TooLittleMemory { .. }
            | Self::CannotLeave { .. }
            | Self::Image(_)
            | Self::Bundle(_)
            | Self::Hook(_)
            | Self::Refused { .. } => Kind::FailedPrecondition,
            Self::RootFiles(fastmig_rootfs::Error::Io { .. }) => Kind::Internal,
            Self::RootFiles(_) => Kind::FailedPrecondition,
            Self::Busy { .. } => Kind::Unavailable,
            Self::NotFrozen { .. } | Self::Criu(CriuError::TimedOut { .. }) => Kind::DeadlineExceeded,
            Self::Runc(e) => e.kind(),
            Self::Differs { .. }
            | Self::View(_)
            | Self::State { .. }
            | Self::Init { .. }
            | Self::Criu(_)
            | Self::Launch(_)
            | Self::Io { .. } => Kind::Internal,
        }
    }

    /// The failure and everything that caused it, in one line.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(e) = cause {
            let more = e.to_string();
            if !text.ends_with(&more) {
                text = format!("{text}: {more}");
            }
            cause = e.source();
        }
        text
    }
}
