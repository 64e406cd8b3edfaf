//! What can go wrong with certificates and tokens.

use std::io;
use std::path::{Path, PathBuf};

/// Why a certificate or token could not be made, read or exchanged.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file operation failed.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no usable {what}: {cause}; put the right file there", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        cause: String,
    },
    /// A name cannot be in a certificate.
    #[error("{name:?} is no usable name: small letters, digits, - and . only, at most 63, letters or digits at both ends")]
    BadName {
        /// What was given.
        name: String,
    },
    /// The name is another host's.
    #[error("the name {name:?} is taken: choose another, or say `fastmigd peers remove {name}` on the host that ran init")]
    Taken {
        /// The name.
        name: String,
    },
    /// There is a certificate here already.
    #[error("this host has a certificate already ({}): remove that directory to begin anew", place.display())]
    Initialized {
        /// Where.
        place: PathBuf,
    },
    /// There is none.
    #[error("this host has no certificate: run `fastmigd init` here, or `fastmigd token` on the host that ran it and `fastmigd join TOKEN` here")]
    NotInitialized,
    /// Certificates are signed elsewhere.
    #[error("this host signs no certificates: ask the host that ran `fastmigd init`, or your own authority")]
    NoAuthority,
    /// The host has no address that a token could name.
    #[error("this host has no address: set `listen` in [daemon] of the configuration, or give --address")]
    NoAddress,
    /// The text is no token.
    #[error("that is no token: give the line that `fastmigd token` printed")]
    BadToken,
    /// The token is not accepted. One text for all reasons: who guesses learns nothing.
    #[error("the token is unknown, used up or expired: get another by `fastmigd token`")]
    TokenRefused,
    /// The certificate does not say who its owner is.
    #[error("the certificate {cause}: have one made with a common name and the organizational unit fastmig:ROLE (reader, operator, admin, node)")]
    Stranger {
        /// What is missing.
        cause: &'static str,
    },
    /// A certificate or key could not be made.
    #[error("could not make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls does not take what it was given.
    #[error("the certificates cannot be used for TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The certificates of clients cannot be checked.
    #[error("the authority's certificate cannot check others: {0}")]
    Verifier(#[from] tokio_rustls::rustls::server::VerifierBuilderError),
    /// It is nobody's place yet.
    #[error(
        "a certificate of the role {role} is a person's, not this host's: say where it goes by --out DIR"
    )]
    NeedsPlace {
        /// What the certificate allows.
        role: super::role::Role,
    },
    /// The other host could not be asked.
    #[error("could not join at {address}: {cause}")]
    Join {
        /// The host that signs.
        address: String,
        /// Why.
        cause: String,
    },
    /// No such host is known.
    #[error("no host {name:?} is known here: {known}; add it by `fastmigd peers add {name} ADDRESS:PORT`")]
    UnknownPeer {
        /// The name.
        name: String,
        /// Those that are.
        known: String,
    },
}

impl PkiError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn bad_file<E: ToString>(path: &Path, what: &'static str) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |cause| Self::BadFile { path, what, cause: cause.to_string() }
    }
}
