//! Signs certificates. Its key is on the host that ran `fastmigd init` alone.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::role::Role;
use super::{name, PkiError, Place};

pub(super) const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// How long the authority lasts, in days.
const AUTHORITY_DAYS: i64 = 20 * 365;
/// How long a certificate lasts, in days; a new one is got by joining again.
const CERTIFICATE_DAYS: i64 = 5 * 365;

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The host's or person's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// The cluster's certificate authority.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one in `place`.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn make(place: &Place) -> Result<Self, PkiError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "FastMig cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        last(&mut params, AUTHORITY_DAYS);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        place.replace(CA_KEY, &key.serialize_pem())?;
        place.replace(CA_CERTIFICATE, &certificate)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The one in `place`; nothing where certificates are signed elsewhere.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn open(place: &Place) -> Result<Option<Self>, PkiError> {
        let Some(key) = place.read(CA_KEY)? else { return Ok(None) };
        let path = place.file(CA_KEY);
        let key = KeyPair::from_pem(&key).map_err(PkiError::bad_file(&path, "key"))?;
        let path = place.file(CA_CERTIFICATE);
        let certificate = place.read(CA_CERTIFICATE)?.unwrap_or_default();
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .map_err(PkiError::bad_file(&path, "certificate of an authority"))?;
        Ok(Some(Self { certificate, issuer }))
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A key and its certificate, both PEM.
    ///
    /// # Errors
    /// When the name is not usable.
    pub fn issue(&self, subject: &Subject) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate()?;
        let certificate = params(subject)?.signed_by(&key, &self.issuer)?;
        Ok((key.serialize_pem(), certificate.pem()))
    }

    /// A certificate for the key in `request`, PEM. Nothing else is taken from the request: who asks does not decide who
    /// it is.
    ///
    /// # Errors
    /// When the request is none, or the name not usable.
    pub fn sign(&self, request: &str, subject: &Subject) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        Ok(params(subject)?.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

/// The certificate of the authority that is trusted in `place`, PEM; nothing before `init` and `join`.
///
/// # Errors
/// When it cannot be read.
pub fn certificate(place: &Place) -> Result<Option<String>, PkiError> {
    place.read(CA_CERTIFICATE)
}

/// A new key, PEM, and a request for its certificate.
///
/// # Errors
/// When they cannot be made.
pub fn request() -> Result<(String, String), PkiError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::new(Vec::new())?.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.pem()?))
}

/// SHA-256 of a certificate in PEM.
///
/// # Errors
/// When it is none.
pub fn fingerprint(certificate: &str) -> Result<[u8; 32], PkiError> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|_| PkiError::Stranger { cause: "is not in PEM form" })?;
    Ok(Sha256::digest(&certificate).into())
}

fn params(subject: &Subject) -> Result<CertificateParams, PkiError> {
    name::check(&subject.name)?;
    let mut params = CertificateParams::new(vec![subject.name.clone()])?;
    params.distinguished_name.push(DnType::CommonName, subject.name.as_str());
    params.distinguished_name.push(DnType::OrganizationalUnitName, subject.role.unit());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    // Nobody but a host answers connections.
    if subject.role == Role::Node {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    last(&mut params, CERTIFICATE_DAYS);
    Ok(params)
}

/// From yesterday on, because clocks differ.
fn last(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(days);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::certificate;

    #[test]
    fn an_authority_is_found_again_and_decides_who_somebody_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::at(dir.path());
        assert!(Authority::open(&place).unwrap().is_none());
        let made = Authority::make(&place).unwrap();
        let again = Authority::open(&place).unwrap().unwrap();
        assert_eq!(made.certificate(), again.certificate());

        let (_, request) = request().unwrap();
        let subject = Subject { name: "alice".into(), role: Role::Reader };
        let signed = again.sign(&request, &subject).unwrap();
        let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
        let caller = certificate::caller(&der).unwrap();
        assert_eq!((caller.name.as_str(), caller.role), ("alice", Role::Reader));
    }

    #[test]
    fn nonsense_is_not_signed() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::make(&Place::at(dir.path())).unwrap();
        let subject = |name: &str| Subject { name: name.into(), role: Role::Node };
        assert!(authority.sign("nonsense", &subject("a")).is_err());
        assert!(authority.issue(&subject("*")).is_err());
    }
}
