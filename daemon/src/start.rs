//! Why the daemon does not start.

use std::io;
use std::path::{Path, PathBuf};

use crate::migrations::MigrationsError;
use crate::pki::PkiError;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else than root started it.
    #[error("fastmigd needs root: start it by systemctl start fastmigd")]
    NotRoot,
    /// Another one runs.
    #[error("another fastmigd uses {}: stop it first", path.display())]
    AlreadyRuns {
        /// What it holds.
        path: PathBuf,
    },
    /// A listener without authentication is asked for.
    #[error("listen = {address:?} in [daemon], but this host has no certificate, and nobody is served without one: run `fastmigd init` or `fastmigd join TOKEN`, or give ca, certificate and key")]
    NoAuthentication {
        /// Where it should listen.
        address: String,
    },
    /// The address is not one.
    #[error("this host's address {address:?} is none with a port: give one such as 10.0.0.1:7443")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] fastmig_engine::Error),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Migrations.
    #[error(transparent)]
    Migrations(#[from] MigrationsError),
    /// A file or socket operation failed.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StartError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
