//! Connections between both hosts, over socket pairs.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fastmig_migrate::transport::Connection;

const WHOLE: u8 = 0;
const CUT: u8 = 1;
const SILENT: u8 = 2;

/// What becomes of bytes between both hosts.
#[derive(Debug, Clone, Default)]
pub struct Network(Arc<AtomicU8>);

impl Network {
    pub fn cut(&self) {
        self.0.store(CUT, Ordering::SeqCst);
    }

    pub fn fall_silent(&self) {
        self.0.store(SILENT, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.0.store(WHOLE, Ordering::SeqCst);
    }

    pub fn pair(&self) -> io::Result<(Box<dyn Connection>, Box<dyn Connection>)> {
        match self.0.load(Ordering::SeqCst) {
            WHOLE => {}
            CUT => return Err(io::ErrorKind::ConnectionRefused.into()),
            _ => {
                thread::sleep(Duration::from_millis(100));
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let (a, b) = UnixStream::pair()?;
        let line =
            |stream| Box::new(Line { stream, network: self.clone(), broken: None, limit: Duration::ZERO });
        Ok((line(a), line(b)))
    }
}

/// One end of a connection. What befalls it once stays: a healed network brings no connection back.
#[derive(Debug)]
struct Line {
    stream: UnixStream,
    network: Network,
    broken: Option<u8>,
    limit: Duration,
}

impl Line {
    fn pass(&mut self) -> io::Result<()> {
        let now = self.network.0.load(Ordering::SeqCst);
        if now != WHOLE {
            self.broken.get_or_insert(now);
        }
        match self.broken {
            None => Ok(()),
            Some(CUT) => {
                drop(self.stream.shutdown(std::net::Shutdown::Both));
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Some(_) => {
                thread::sleep(self.limit);
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }
}

impl Read for Line {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.pass()?;
        self.stream.read(into)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Connection for Line {
    fn limit(&mut self, limit: Duration) -> io::Result<()> {
        self.limit = limit;
        self.stream.limit(limit)
    }
}
