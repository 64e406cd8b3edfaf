//! Mutual TLS 1.3 over TCP. Certificates, and whom to trust, are the daemon's.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData, StreamOwned,
};

use super::{Connection, Deadline, Dialer};

/// The name of this protocol among those that one port serves (ALPN). Both configurations must offer it.
pub const ALPN: &[u8] = b"fastmig-migrate/1";

impl Connection for StreamOwned<ClientConnection, TcpStream> {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.sock.limit(limit)
    }
}

impl Connection for StreamOwned<ServerConnection, TcpStream> {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.sock.limit(limit)
    }
}

/// Dials one host by TLS.
#[derive(Debug, Clone)]
pub struct TlsDialer {
    /// Addresses of the host, tried in order.
    pub addresses: Vec<SocketAddr>,
    /// Whom its certificate must name.
    pub name: ServerName<'static>,
    /// Our certificate, and whom we trust; offers [`ALPN`].
    pub config: Arc<ClientConfig>,
    /// How long one address may take, handshake included.
    pub limit: Duration,
}

impl Dialer for TlsDialer {
    fn dial(&self) -> io::Result<Box<dyn Connection>> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the host has no address");
        for address in &self.addresses {
            match self.dial_one(address) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(last)
    }
}

impl TlsDialer {
    fn dial_one(&self, address: &SocketAddr) -> io::Result<Box<dyn Connection>> {
        let deadline = Deadline::after(self.limit);
        let stream = TcpStream::connect_timeout(address, self.limit)?;
        let tls = ClientConnection::new(self.config.clone(), self.name.clone()).map_err(io::Error::other)?;
        let stream = shake_hands(StreamOwned::new(tls, stream), deadline)?;
        Ok(Box::new(stream))
    }
}

/// Takes in a connection whose peer must show a certificate that `config` trusts, and speak [`ALPN`].
///
/// # Errors
/// When the handshake fails or takes longer than `limit`.
pub fn accept(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    limit: Duration,
) -> io::Result<StreamOwned<ServerConnection, TcpStream>> {
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    shake_hands(StreamOwned::new(tls, stream), Deadline::after(limit))
}

/// It is reached and says nothing.
fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it takes connections and does not answer within the time limit")
}

fn shake_hands<C, S>(
    mut stream: StreamOwned<C, TcpStream>,
    deadline: Deadline,
) -> io::Result<StreamOwned<C, TcpStream>>
where
    C: std::ops::DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    stream.sock.set_nodelay(true)?;
    while stream.conn.is_handshaking() {
        let left = deadline.left().ok_or_else(silent)?;
        stream.sock.limit(left)?;
        stream.conn.complete_io(&mut stream.sock).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => silent(),
            _ => e,
        })?;
    }
    if stream.conn.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "the peer takes no migrations: it does not speak fastmig-migrate/1",
        ));
    }
    Ok(stream)
}
