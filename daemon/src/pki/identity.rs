//! This host's own certificate and key.

use std::path::{Path, PathBuf};

use fastmig_engine::config::Daemon;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::authority::{Authority, Subject, CA_CERTIFICATE};
use super::peers::Peers;
use super::role::Role;
use super::{certificate, name, PkiError, Place};

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const HOST: &str = "host.json";

/// A certificate, its key, and the authority that others' are checked by.
#[derive(Debug)]
pub struct Identity {
    /// The name in the certificate.
    pub name: String,
    /// The certificate and those between it and the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The authority.
    pub ca: CertificateDer<'static>,
}

/// What `init` and `join` were told of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSettings {
    /// Its name.
    pub name: String,
    /// Where other hosts find it; it listens there too, unless the configuration says otherwise.
    pub address: Option<String>,
}

/// Begins a cluster: an authority, and a certificate for this host.
///
/// # Errors
/// When there is one already, the name is not usable, or files cannot be written.
pub fn init(place: &Place, settings: &HostSettings) -> Result<(), PkiError> {
    name::check(&settings.name)?;
    if is_there(place)? {
        return Err(PkiError::Initialized { place: place.file("") });
    }
    place.make()?;
    let authority = match Authority::open(place)? {
        // A run that was killed has made it.
        Some(authority) => authority,
        None => Authority::make(place)?,
    };
    let (key, certificate) = authority.issue(&Subject { name: settings.name.clone(), role: Role::Node })?;
    store(place, settings, authority.certificate(), &key, &certificate)
}

/// Whether there is a certificate already.
pub(super) fn is_there(place: &Place) -> Result<bool, PkiError> {
    Ok(place.read(CERTIFICATE)?.is_some())
}

/// Writes what makes an identity; the certificate last, because it says that all is there.
pub(super) fn store(
    place: &Place,
    settings: &HostSettings,
    ca: &str,
    key: &str,
    certificate: &str,
) -> Result<(), PkiError> {
    place.make()?;
    place.replace(CA_CERTIFICATE, ca)?;
    place.replace(KEY, key)?;
    let path = place.file(HOST);
    crate::files::replace_json(&path, settings).map_err(PkiError::io("write", &path))?;
    if let Some(address) = &settings.address {
        Peers::open(place).put(&settings.name, address)?;
    }
    place.replace(CERTIFICATE, certificate)
}

impl HostSettings {
    /// Those of this host; nothing before `init` and `join`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(place: &Place) -> Result<Option<Self>, PkiError> {
        let path = place.file(HOST);
        crate::files::read_json(&path).map_err(PkiError::io("read", &path))
    }
}

impl Identity {
    /// The one that the configuration names, or the one that `init` or `join` made; nothing when there is none.
    ///
    /// # Errors
    /// When files cannot be read or do not hold what they should.
    pub fn load(settings: &Daemon, place: &Place) -> Result<Option<Self>, PkiError> {
        if settings.has_own_certificates() {
            return Self::read(&settings.ca, &settings.certificate, &settings.key).map(Some);
        }
        let files = [CA_CERTIFICATE, CERTIFICATE, KEY].map(|name| place.file(name));
        if !files[1].exists() {
            return Ok(None);
        }
        Self::read(&files[0], &files[1], &files[2]).map(Some)
    }

    /// The one in these PEM files.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn read(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let read = |path: &PathBuf| match crate::files::read(path) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(PkiError::io("read", path)(std::io::ErrorKind::NotFound.into())),
            Err(e) => Err(PkiError::io("read", path)(e)),
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(read(&certificate.to_owned())?.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(PkiError::bad_file(certificate, "certificate"))?;
        let first =
            chain.first().ok_or_else(|| PkiError::bad_file(certificate, "certificate")("it is empty"))?;
        let name = certificate::caller(first)?.name;
        let key = PrivateKeyDer::from_pem_slice(read(&key.to_owned())?.as_bytes())
            .map_err(PkiError::bad_file(key, "key"))?;
        let ca = CertificateDer::from_pem_slice(read(&ca.to_owned())?.as_bytes())
            .map_err(PkiError::bad_file(ca, "certificate"))?;
        Ok(Self { name, chain, key, ca })
    }
}
