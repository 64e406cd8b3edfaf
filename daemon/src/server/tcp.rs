//! Mutual TLS on one port. What the client speaks decides where it goes; whoever has no certificate can only join.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_rustls::LazyConfigAcceptor;

use super::http::Http;
use crate::pki::certificate::{self, Caller};
use crate::pki::identity::Identity;
use crate::pki::join::Desk;
use crate::pki::role::Role;
use crate::pki::{tls, PkiError};
use crate::start::StartError;

/// A handshake must be done within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Clients that have not shown a certificate yet, at a time.
const STRANGERS: usize = 64;
/// A client that takes nothing of what it is sent is given up after this time, in milliseconds.
const UNSENT: u32 = 30_000;

/// What clients must show, and where they go then.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    members: Arc<ServerConfig>,
    newcomers: Option<(Arc<ServerConfig>, Arc<Desk>)>,
}

impl Gate {
    /// For everybody with a certificate; and, where certificates are signed, for those with a token.
    pub(crate) fn new(identity: &Identity, desk: Option<Arc<Desk>>) -> Result<Self, PkiError> {
        let newcomers = match desk {
            Some(desk) => Some((tls::join_server(identity)?, desk)),
            None => None,
        };
        Ok(Self { members: tls::server(identity)?, newcomers })
    }
}

/// A listener on a TCP port. There is none without a [`Gate`].
#[derive(Debug)]
pub(crate) struct Tcp {
    listener: TcpListener,
    gate: Gate,
    strangers: Arc<Semaphore>,
    places: Arc<Semaphore>,
    http: Http,
}

/// What a client turned out to be.
enum Guest {
    Newcomer(TlsStream<TcpStream>, Arc<Desk>),
    Migration(TlsStream<TcpStream>, Caller),
    Web { stream: TlsStream<TcpStream>, caller: Caller, http2: bool },
}

impl Tcp {
    pub(crate) async fn bind(address: SocketAddr, gate: Gate, http: Http) -> Result<Arc<Self>, StartError> {
        let place = std::path::PathBuf::from(address.to_string());
        let listener = TcpListener::bind(address).await.map_err(StartError::io("listen on", &place))?;
        let places = Semaphore::new(http.daemon.config.daemon.max_connections);
        let strangers = Semaphore::new(STRANGERS);
        Ok(Arc::new(Self { listener, gate, strangers: strangers.into(), places: places.into(), http }))
    }

    /// Takes connections until the daemon stops.
    pub(crate) async fn serve(self: Arc<Self>) {
        let mut stopping = std::pin::pin!(self.http.daemon.stopping());
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stopping => return,
            };
            match accepted {
                Ok((stream, _)) => self.admit(stream),
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be taken");
                    // Out of descriptors: at once it would be no better.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) {
        let Ok(stranger) = self.strangers.clone().try_acquire_owned() else {
            return self.http.daemon.metrics.refused("too many handshakes");
        };
        let tcp = self.clone();
        tokio::spawn(async move {
            let guest = timeout(HANDSHAKE, tcp.greet(stream))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match guest {
                // Whoever has no certificate stays among the strangers.
                Ok(Guest::Newcomer(stream, desk)) => {
                    if let Err(e) = desk.serve(stream).await {
                        tracing::debug!(error = %e, "a newcomer went");
                    }
                    drop(stranger);
                }
                Ok(guest) => {
                    drop(stranger);
                    tcp.host(guest).await;
                }
                Err(e) => {
                    tcp.http.daemon.metrics.refused("handshake");
                    tracing::debug!(error = %e, "a connection was refused");
                }
            }
        });
    }

    /// The handshake, and what is spoken then.
    async fn greet(&self, stream: TcpStream) -> io::Result<Guest> {
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::TcpUserTimeout, &UNSENT)?;
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let newcomer = start.client_hello().alpn().is_some_and(|mut offered| {
            let first = offered.next();
            first == Some(tls::JOIN) && offered.next().is_none()
        });
        if let (true, Some((config, desk))) = (newcomer, &self.gate.newcomers) {
            return Ok(Guest::Newcomer(start.into_stream(config.clone()).await?, desk.clone()));
        }
        let stream = start.into_stream(self.gate.members.clone()).await?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let shown = shown.ok_or_else(|| io::Error::other("it showed no certificate"))?;
        let caller = certificate::caller(shown).map_err(io::Error::other)?;
        match session.alpn_protocol() {
            Some(tls::MIGRATE) if caller.role != Role::Node => {
                Err(io::Error::other(format!("{} is a {} and no node", caller.name, caller.role)))
            }
            Some(tls::MIGRATE) => Ok(Guest::Migration(stream, caller)),
            protocol => Ok(Guest::Web { http2: protocol == Some(tls::HTTP2), stream, caller }),
        }
    }

    async fn host(&self, guest: Guest) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.http.daemon.metrics.refused("too many");
        };
        match guest {
            Guest::Web { stream, caller, http2 } => self.http.serve(stream, caller, http2).await,
            Guest::Migration(stream, caller) => self.http.daemon.clone().arrive(stream, caller).await,
            Guest::Newcomer(..) => {}
        }
        drop(place);
    }
}
