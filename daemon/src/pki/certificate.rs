//! Reads name and role of who connects.

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::role::Role;
use super::PkiError;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The certificate's common name; `root` on the unix socket.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// Who speaks on the unix socket.
    #[must_use]
    pub fn root() -> Self {
        Self { name: "root".into(), role: Role::Admin }
    }
}

/// The owner of a certificate that TLS has verified.
///
/// # Errors
/// When it names nobody, or no role, or several.
pub fn caller(certificate: &CertificateDer<'_>) -> Result<Caller, PkiError> {
    let stranger = |cause| PkiError::Stranger { cause };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| stranger("cannot be read"))?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| stranger("has no common name"))?;
    let units = subject.iter_organizational_unit().filter_map(|unit| unit.as_str().ok());
    let mut roles = units.filter_map(Role::of_unit);
    match (roles.next(), roles.next()) {
        (Some(role), None) => Ok(Caller { name: name.chars().take(128).collect(), role }),
        (None, _) => Err(stranger("has no role")),
        (Some(_), Some(_)) => Err(stranger("has several roles")),
    }
}
