//! Who may speak to this host: certificates, roles, and how they are made and exchanged.
//!
//! | file | what it does |
//! |---|---|
//! | [`role`] | what a certificate's owner may do |
//! | [`name`] | what hosts and people are called |
//! | [`authority`] | signs certificates; on the host that ran `fastmigd init` alone |
//! | [`certificate`] | reads name and role of who connects |
//! | [`identity`] | this host's own certificate and key, from `init`, `join` or the operator's authority |
//! | [`peers`] | the other hosts' addresses |
//! | [`token`] | what a new host shows once, in place of a certificate |
//! | [`join`] | how it gets one |
//! | [`tls`] | what rustls is told of all this |
//!
//! Files are below `pki/` in the daemon's state directory, for root alone.

pub mod authority;
pub mod certificate;
mod error;
pub mod identity;
pub mod join;
pub mod name;
pub mod peers;
pub mod role;
pub mod tls;
pub mod token;

use std::path::{Path, PathBuf};

pub use error::PkiError;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// Below the daemon's state directory.
    #[must_use]
    pub fn below(state_dir: &Path) -> Self {
        Self(state_dir.join("pki"))
    }

    /// In this directory itself.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn make(&self) -> Result<(), PkiError> {
        crate::files::make_private_dir(&self.0).map_err(PkiError::io("make", &self.0))
    }

    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, PkiError> {
        let path = self.file(name);
        crate::files::read(&path).map_err(PkiError::io("read", &path))
    }

    pub(crate) fn replace(&self, name: &str, content: &str) -> Result<(), PkiError> {
        let path = self.file(name);
        crate::files::replace(&path, content.as_bytes()).map_err(PkiError::io("write", &path))
    }
}
