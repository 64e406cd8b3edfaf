//! The other hosts: by name to their addresses, by TLS to themselves.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use fastmig_api::{Code, ErrorInfo};
use fastmig_migrate::ends::EndError;
use fastmig_migrate::recover;
use fastmig_migrate::transport::tls::TlsDialer;
use fastmig_migrate::transport::Dialer;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::ClientConfig;

use crate::pki::identity::Identity;
use crate::pki::peers::Peers;
use crate::pki::{tls, PkiError};

/// How long an address may take, handshake included.
const DIAL: Duration = Duration::from_secs(10);

/// All that are known.
#[derive(Debug)]
pub(super) struct Hosts {
    tls: Option<Arc<ClientConfig>>,
    peers: Peers,
}

impl Hosts {
    pub(super) fn new(identity: Option<&Identity>, peers: Peers) -> Result<Self, PkiError> {
        let tls = identity.map(|identity| tls::client(identity, tls::MIGRATE)).transpose()?;
        Ok(Self { tls, peers })
    }

    /// The name of the host that is meant by its name or its address.
    pub(super) fn name(&self, text: &str) -> Result<String, ErrorInfo> {
        let refused = |e: PkiError| ErrorInfo::of(Code::Refused, &e);
        let all = self.peers.all().map_err(refused)?;
        if all.contains_key(text) {
            return Ok(text.to_owned());
        }
        // A certificate names a host, not an address: without the name nobody knows who should answer there.
        let by_address =
            all.iter().find(|(_, address)| address.as_str() == text).map(|(name, _)| name.clone());
        by_address.map_or_else(|| self.peers.address(text).map(|_| text.to_owned()).map_err(refused), Ok)
    }

    /// Connects to the host of this name, which must show a certificate with it.
    pub(super) fn dialer(&self, name: &str) -> Result<TlsDialer, EndError> {
        let config = self.tls.clone().ok_or(PkiError::NotInitialized)?;
        let address = self.peers.address(name)?;
        let addresses: Vec<_> =
            address.to_socket_addrs().map_err(|e| format!("{name} is at {address}: {e}"))?.collect();
        Ok(TlsDialer { addresses, name: ServerName::try_from(name.to_owned())?, config, limit: DIAL })
    }
}

impl recover::Peers for Hosts {
    fn dialer(&self, peer: &str) -> Result<Box<dyn Dialer>, EndError> {
        Ok(Box::new(Self::dialer(self, peer)?))
    }
}
