//! A port of a test host, and connections to it from inside the hosts' network.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{setns, CloneFlags};

use crate::framework::process::wait_until;
use crate::framework::Host;

const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// An answer that takes longer is as good as none.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Where a service answers, as a program on one of the hosts reaches it.
#[derive(Debug, Clone)]
pub struct Peer {
    address: SocketAddr,
    network: Arc<File>,
}

impl Peer {
    /// The port `port` of `host`, for a client on `client`.
    pub fn new(host: &Host, port: u16, client: &Host) -> Result<Self> {
        Self::at(&host.address(), port, client)
    }

    /// The port `port` of the address `ip`, wherever that is, for a client on `client`.
    pub fn at(ip: &str, port: u16, client: &Host) -> Result<Self> {
        let address = format!("{ip}:{port}").parse()?;
        let network = format!("/proc/{}/ns/net", client.pid());
        let network = File::open(&network).with_context(|| format!("cannot open {network}"))?;
        Ok(Self { address, network: Arc::new(network) })
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// A new connection. It belongs to the client's network whoever uses it later: only a thread of its own goes there.
    pub fn connect(&self) -> io::Result<Connection> {
        let connect = || {
            setns(&*self.network, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect_timeout(&self.address, CONNECT_LIMIT)
        };
        let stream = std::thread::scope(|scope| scope.spawn(connect).join());
        Connection::new(stream.map_err(|_| io::Error::other("the connecting thread panicked"))??)
    }

    /// Waits until somebody listens there.
    pub fn wait_until_up(&self, limit: Duration) -> Result<()> {
        wait_until(limit, || self.connect().is_ok())
            .with_context(|| format!("nothing listens on {}", self.address))
    }
}

/// A connection that is read by lines and lengths.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self(BufReader::with_capacity(64 * 1024, stream)))
    }

    /// Sends all of `data`.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(data)
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
