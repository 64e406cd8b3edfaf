//! The process that fetches what an application which has come still misses: this program once more. It outlives the daemon that
//! started it, connects to the source by itself, and shows this host's certificate there as the daemon would.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use fastmig_engine::migration::{filler, Fetch};
use fastmig_engine::Config;
use fastmig_migrate::ends::EndError;
use fastmig_migrate::fetch::{Errand, Fetcher};
use fastmig_migrate::transport::tls::TlsDialer;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::pki::identity::Identity;
use crate::pki::{tls, PkiError, Place};
use crate::telemetry;

/// How long an address may take, handshake included.
const DIAL: Duration = Duration::from_secs(10);

/// An errand, and where the source is found.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    errand: Errand,
    addresses: Vec<String>,
}

/// An errand in the words of this process.
///
/// # Errors
/// When nobody knows where the source is.
pub(crate) fn described(errand: &Errand, addresses: &[String]) -> Result<String, EndError> {
    if addresses.is_empty() {
        let source = &errand.source;
        return Err(format!(
            "memory that follows is fetched from {source}, and nobody here knows where that is: run `fastmigd peers add {source} ADDRESS`"
        )
        .into());
    }
    Ok(serde_json::to_string(&Sent { errand: errand.clone(), addresses: addresses.to_vec() })?)
}

/// Becomes one, if that is what this process was started for.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    filler::run_if_asked(&|errand| fetch(errand).map_err(|e| e.to_string()))
}

fn fetch(errand: &str) -> Result<Arc<dyn Fetch>, EndError> {
    let Sent { errand, addresses } = serde_json::from_str(errand)?;
    let config = Config::load()?;
    telemetry::begin("info", "");
    let identity = Identity::load(&config.daemon, &Place::below(&config.daemon.state_dir))?;
    let identity = identity.ok_or(PkiError::NotInitialized)?;
    let dialer = TlsDialer {
        addresses: resolved(&addresses)?,
        name: ServerName::try_from(errand.source.clone())?,
        config: tls::client(&identity, tls::MIGRATE)?,
        limit: DIAL,
    };
    Ok(Arc::new(Fetching(Fetcher::start(errand, Box::new(dialer))?)))
}

/// Of several names those count that can be found.
fn resolved(addresses: &[String]) -> Result<Vec<SocketAddr>, EndError> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut trouble = String::new();
    for address in addresses {
        match address.to_socket_addrs() {
            // One that listens on all its addresses has not said where.
            Ok(all) => found.extend(all.filter(|address| !address.ip().is_unspecified())),
            Err(e) => trouble = format!(": {address}: {e}"),
        }
    }
    if found.is_empty() {
        return Err(
            format!("memory that follows cannot be fetched, for the source has no address{trouble}").into()
        );
    }
    Ok(found)
}

#[derive(Debug)]
struct Fetching(Fetcher);

impl Fetch for Fetching {
    fn fetch(&self, image: &str, offset: u64, into: &mut [u8], urgent: bool) -> io::Result<()> {
        self.0.fetch(image, offset, into, urgent)
    }

    fn be_patient(&self) -> Result<(), String> {
        self.0.be_patient()
    }

    fn close(&self, reason: &str) {
        self.0.close(reason);
    }

    fn say_all_is_here(&self, bytes: u64, faults: u64, milliseconds: u64, limit: Duration) {
        self.0.say_all_is_here(bytes, faults, milliseconds, limit);
    }
}
