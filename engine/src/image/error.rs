//! Why a directory is no usable checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use super::{FORMAT, FORMAT_IN_ROUNDS, MANIFEST};

/// Why a directory is no usable checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It has no manifest.
    #[error("{path:?} is not a checkpoint: it has no {MANIFEST} (an interrupted one has none)")]
    NoManifest {
        /// The directory.
        path: PathBuf,
    },
    /// The manifest is not what this version writes.
    #[error("the manifest of checkpoint {path:?} is damaged")]
    BadManifest {
        /// The directory.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// It is of another format.
    #[error("checkpoint {path:?} has format {found}, this FastMig reads {FORMAT} and {FORMAT_IN_ROUNDS}")]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// One of its files is not what the manifest says.
    #[error("checkpoint {path:?} is damaged: {file:?} {problem}; use another checkpoint")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Others than root could have changed it.
    #[error(
        "checkpoint {path:?} belongs to uid {owner} or is writable by others: only root may own checkpoints"
    )]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// This machine is of another kind.
    #[error("checkpoint {path:?} was taken on {theirs}, this machine is {ours}")]
    Architecture {
        /// The directory.
        path: PathBuf,
        /// The checkpoint's machine.
        theirs: String,
        /// This machine.
        ours: String,
    },
    /// This CPU lacks something.
    #[error("checkpoint {path:?} was taken on a CPU with {missing}, which this one lacks: restore on a host with a newer CPU")]
    Cpu {
        /// The directory.
        path: PathBuf,
        /// The missing features.
        missing: String,
    },
    /// The container has a terminal and the checkpoint has none, or the other way round.
    #[error(
        "checkpoint {path:?} was taken {theirs} a terminal, the container is {ours} one: create it alike"
    )]
    Terminal {
        /// The directory.
        path: PathBuf,
        /// `with` or `without`.
        theirs: &'static str,
        /// `with` or `without`.
        ours: &'static str,
    },
    /// The place for it is taken.
    #[error("{path:?} exists and is not empty: choose another place for the checkpoint")]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
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

/// For `map_err`.
pub(super) fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io { action, path: path.into(), source }
}
