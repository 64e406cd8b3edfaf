//! The one that asks.

use std::collections::BTreeMap;
use std::io;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::message::{self, Reply, Request, LIMIT, LONGEST_REPLY};
use crate::pki::authority::{self, fingerprint};
use crate::pki::identity::{self, HostSettings};
use crate::pki::peers::Peers;
use crate::pki::token::Token;
use crate::pki::{name, tls, PkiError, Place};

/// What joining brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The hosts that are known now.
    pub peers: BTreeMap<String, String>,
}

/// Gets a certificate for `token` and puts it into `place`.
///
/// # Errors
/// When there is one already, the other host cannot be reached or is another one than the token says, or it refuses.
pub async fn join(place: &Place, token: &Token, settings: &HostSettings) -> Result<Joined, PkiError> {
    name::check(&settings.name)?;
    if identity::is_there(place)? {
        return Err(PkiError::Initialized { place: place.file("") });
    }
    let failed = |cause: String| PkiError::Join { address: token.address.clone(), cause };
    let (key, request) = authority::request()?;
    let request = Request {
        id: hex::encode(token.id),
        secret: hex::encode(token.secret),
        name: settings.name.clone(),
        address: settings.address.clone(),
        request,
    };
    let reply = timeout(LIMIT, ask(token, &request)).await;
    let reply = reply.map_err(|_| failed("no answer in time".into()))?.map_err(|e| failed(e.to_string()))?;
    match reply {
        Reply::Refused { why } => Err(failed(why)),
        Reply::Granted { ca, .. } if fingerprint(&ca)? != token.ca => {
            Err(failed("it answered with another authority than the token's".into()))
        }
        Reply::Granted { certificate, ca, peers } => {
            identity::store(place, settings, &ca, &key, &certificate)?;
            let table = Peers::open(place);
            table.merge(peers)?;
            Ok(Joined { peers: table.all()? })
        }
    }
}

async fn ask(token: &Token, request: &Request) -> io::Result<Reply> {
    let config = tls::join_client(token.ca).map_err(io::Error::other)?;
    let stream = TcpStream::connect(&token.address).await?;
    // The name is not looked at: the authority's fingerprint decides.
    let host = ServerName::try_from("fastmig").map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(config).connect(host, stream).await?;
    message::write(&mut stream, request).await?;
    message::read(&mut stream, LONGEST_REPLY).await
}
