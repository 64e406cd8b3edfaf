//! Why an installation came to nothing.

use std::io;
use std::path::{Path, PathBuf};

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("could not {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the operator's is not what its program would understand.
    #[error("{}, line {line}: {cause}; correct it and try again", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        cause: String,
    },
    /// The program that a file is for does not take it.
    #[error("{program} refuses the changed {}: {words}", path.display())]
    Refused {
        /// The program.
        program: &'static str,
        /// The file.
        path: PathBuf,
        /// What the program said.
        words: String,
    },
    /// There is nothing to install from.
    #[error("{} is not there; name a directory with FastMig's programs (cargo xtask build && cargo xtask bundle make target/dist): --from DIR", missing.display())]
    NothingToInstall {
        /// What was looked for.
        missing: PathBuf,
    },
    /// A package brings the programs.
    #[error("the Debian package fastmig has put the programs into this host; remove it first (apt-get remove fastmig), or leave out --from")]
    Packaged,
    /// The journal is not ours.
    #[error("{} is not an installation's journal ({cause}); move it away, and put back what it tells of by hand", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Another one is at it.
    #[error("another fastmig install is at work in {}; try again when it is done", path.display())]
    Busy {
        /// The directory that it holds.
        path: PathBuf,
    },
    /// It failed half-way, and what it had done is taken back.
    #[error("{cause}. Everything is as it was before")]
    Undone {
        /// Why it failed.
        cause: Box<Error>,
    },
    /// It failed half-way, and what it had done cannot be taken back now.
    #[error("{cause}. Taking it back failed too: {undo}. fastmig install --uninstall tries again")]
    HalfDone {
        /// Why it failed.
        cause: Box<Error>,
        /// Why it stays.
        undo: Box<Error>,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space and try again",
        io::ErrorKind::ReadOnlyFilesystem => "; make it writable and try again",
        io::ErrorKind::PermissionDenied => "; root is needed",
        _ => "",
    }
}
