//! The host that signs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::message::{self, Reply, Request, LIMIT, LONGEST_REQUEST};
use crate::pki::authority::{Authority, Subject};
use crate::pki::peers::{check_address, Peers};
use crate::pki::role::Role;
use crate::pki::token::Tokens;
use crate::pki::{name, PkiError, Place};

/// Who signs, one request at a time.
#[derive(Debug)]
pub struct Desk {
    authority: Mutex<Authority>,
    tokens: Tokens,
    peers: Peers,
}

impl Desk {
    /// Opens where certificates are signed; nothing elsewhere.
    ///
    /// # Errors
    /// When the authority's files cannot be read.
    pub fn open(place: &Place) -> Result<Option<Arc<Self>>, PkiError> {
        let desk = Authority::open(place)?.map(|authority| Self {
            authority: Mutex::new(authority),
            tokens: Tokens::open(place),
            peers: Peers::open(place),
        });
        Ok(desk.map(Arc::new))
    }

    /// Serves one who asks.
    ///
    /// # Errors
    /// When the conversation breaks or takes too long.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self: Arc<Self>, mut stream: S) -> io::Result<()> {
        timeout(LIMIT, async {
            let request: Request = message::read(&mut stream, LONGEST_REQUEST).await?;
            let reply = tokio::task::spawn_blocking(move || self.answer(&request)).await?;
            message::write(&mut stream, &reply).await?;
            stream.shutdown().await
        })
        .await?
    }

    fn answer(&self, request: &Request) -> Reply {
        match self.grant(request) {
            Ok(reply) => {
                tracing::info!(name = request.name, "a certificate was signed");
                reply
            }
            Err(e) => {
                tracing::warn!(error = %e, "a request for a certificate was refused");
                Reply::Refused { why: e.to_string() }
            }
        }
    }

    fn grant(&self, request: &Request) -> Result<Reply, PkiError> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        hex::decode_to_slice(&request.id, &mut id).map_err(|_| PkiError::TokenRefused)?;
        hex::decode_to_slice(&request.secret, &mut secret).map_err(|_| PkiError::TokenRefused)?;
        let authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        self.tokens.redeem(&id, &secret, |role| self.sign(&authority, role, request))
    }

    fn sign(&self, authority: &Authority, role: Role, request: &Request) -> Result<Reply, PkiError> {
        name::check(&request.name)?;
        if role == Role::Node && self.peers.all()?.contains_key(&request.name) {
            return Err(PkiError::Taken { name: request.name.clone() });
        }
        if let Some(address) = &request.address {
            check_address(address)?;
        }
        let certificate = authority.sign(&request.request, &Subject { name: request.name.clone(), role })?;
        let peers = self.peers.all()?;
        if let (Role::Node, Some(address)) = (role, &request.address) {
            self.peers.put(&request.name, address)?;
        }
        Ok(Reply::Granted { certificate, ca: authority.certificate().to_owned(), peers })
    }
}
