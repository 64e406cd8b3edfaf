//! An application comes: connections of other hosts.

use std::io;
use std::sync::Arc;

use fastmig_migrate::destination::Served;
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ServerConnection, StreamOwned};
use tokio_rustls::server::TlsStream;

use crate::daemon::Daemon;
use crate::pki::certificate::Caller;

impl Daemon {
    /// Serves a connection of another host's, on a thread that may block.
    pub(crate) async fn arrive(self: Arc<Self>, stream: TlsStream<TcpStream>, from: Caller) {
        let connection = match blocking(stream) {
            Ok(connection) => connection,
            Err(e) => return tracing::warn!(peer = from.name, error = %e, "a connection was lost"),
        };
        let destination = self.migrations.destination.clone();
        let serve = move || match destination.serve(Box::new(connection), &from.name) {
            Served::Migration(report) => {
                tracing::info!(migration = %report.id, outcome = ?report.outcome, reason = report.reason, "an arrival ended");
            }
            Served::Refused(reason) => tracing::warn!(peer = from.name, reason, "a connection was refused"),
            Served::Data | Served::Answered => {}
        };
        if let Err(e) = tokio::task::spawn_blocking(serve).await {
            tracing::error!(error = %e, "an arrival failed");
        }
    }
}

/// The same connection for a thread that blocks.
fn blocking(stream: TlsStream<TcpStream>) -> io::Result<StreamOwned<ServerConnection, std::net::TcpStream>> {
    let (stream, session) = stream.into_inner();
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(StreamOwned::new(session, stream))
}
