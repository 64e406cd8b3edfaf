//! What the protocol runs over: any connection whose reads and writes take a limited time.
//!
//! | file | what it does |
//! |---|---|
//! | `deadline` | a point in time, as the limit of the next read or write |
//! | `tls` | mutual TLS over TCP |

mod deadline;
pub mod tls;

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(crate) use deadline::Deadline;

/// A connection to the other host, authenticated by whoever made it.
pub trait Connection: Read + Write + Send + Debug {
    /// How long each read and each write from here on may take; they fail with [`io::ErrorKind::WouldBlock`] or
    /// [`io::ErrorKind::TimedOut`] then, and may be tried again.
    ///
    /// # Errors
    /// When the socket is gone.
    fn limit(&mut self, limit: Duration) -> io::Result<()>;
}

/// Makes connections to one host.
pub trait Dialer: Send + Sync {
    /// A new connection. Must take a limited time.
    ///
    /// # Errors
    /// When the host cannot be reached, or is not the one that was meant.
    fn dial(&self) -> io::Result<Box<dyn Connection>>;
}

impl<F: Fn() -> io::Result<Box<dyn Connection>> + Send + Sync> Dialer for F {
    fn dial(&self) -> io::Result<Box<dyn Connection>> {
        self()
    }
}

impl Connection for TcpStream {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

impl Connection for UnixStream {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}
