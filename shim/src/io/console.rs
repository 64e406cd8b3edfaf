//! The terminal of a process: its pty master, as runc sends it, and the copies to and from it.
//!
//! In a warm container the terminal can hang up and come back while the container lives: the application has
//! ended or waits in an image, and the next one opens the terminal again. So a hang-up is not the end of the
//! copies; the end of the container's process is.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::copy::Sink;
use crate::error::Error;
use crate::sys;

/// How long runc may take to send the terminal after it has said that the process is there.
const RECEIVE_LIMIT: Duration = Duration::from_secs(30);
/// How often a terminal that hung up is looked at again.
const HANG_UP_PAUSE: Duration = Duration::from_millis(50);
const BUFFER: usize = 8 * 1024;

/// The socket that runc sends a pty master to. Gone when dropped.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    _directory: tempfile::TempDir,
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Not in the bundle, whose path is too long for a socket's name.
    pub(crate) fn bind() -> Result<Self, Error> {
        let parent = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = tempfile::Builder::new()
            .prefix("fastmig-pty")
            .tempdir_in(&parent)
            .map_err(|e| Error::io("create a directory in", &parent, e))?;
        let path = directory.path().join("pty.sock");
        let listener = UnixListener::bind(&path).map_err(|e| Error::io("listen on", &path, e))?;
        Ok(Self { _directory: directory, path, listener })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The pty master, once runc has been told the path.
    pub(crate) async fn receive(self) -> Result<OwnedFd, Error> {
        match tokio::time::timeout(RECEIVE_LIMIT, self.accept()).await {
            Ok(result) => result.map_err(|e| Error::io("receive the terminal over", &self.path, e)),
            Err(_) => Err(Error::Deadline { what: "the terminal", limit: RECEIVE_LIMIT }),
        }
    }

    async fn accept(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        stream.async_io(Interest::READABLE, || receive_descriptor(stream.as_raw_fd())).await
    }
}

fn receive_descriptor(socket: RawFd) -> io::Result<OwnedFd> {
    let mut name = [0; 4096]; // the pty's name inside the container
    let mut parts = [IoSliceMut::new(&mut name)];
    let mut space = cmsg_space!(RawFd);
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            if let Some(&descriptor) = descriptors.first() {
                return Ok(sys::adopt(descriptor));
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the message holds no descriptor"))
}

/// How far the copies of a terminal are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// The process lives: a hang-up passes.
    Open,
    /// The process has ended: a hang-up is the end of its output.
    Ended,
    /// Nobody has the terminal any more.
    Closed,
}

/// A terminal in use.
#[derive(Debug)]
pub(crate) struct Console {
    master: Mutex<Option<Arc<OwnedFd>>>,
    life: watch::Sender<Life>,
}

impl Console {
    pub(crate) fn new(master: OwnedFd) -> Result<Arc<Self>, Error> {
        let error = |e: Errno| Error::io("set up", "the terminal", e.into());
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL).map_err(error)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(error)?;
        Ok(Arc::new(Self {
            master: Mutex::new(Some(Arc::new(master))),
            life: watch::Sender::new(Life::Open),
        }))
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        match self.master() {
            Some(master) => sys::set_window_size(&*master, columns, rows),
            None => Ok(()), // as the stock shim: who resizes has not seen the end yet
        }
    }

    /// The process has ended; what it wrote is still to be read.
    pub(crate) fn ended(&self) {
        self.life.send_modify(|life| {
            if *life == Life::Open {
                *life = Life::Ended;
            }
        });
    }

    /// Closes the terminal: whoever still has it on the other side gets a hang-up.
    pub(crate) fn close(&self) {
        self.life.send_replace(Life::Closed);
        self.master.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn master(&self) -> Option<Arc<OwnedFd>> {
        self.master.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Copies what the process writes until it has ended and all is read.
    pub(crate) async fn copy_output(self: Arc<Self>, mut sink: Sink) {
        let mut buffer = vec![0; BUFFER];
        let mut life = self.life.subscribe();
        while let Some(master) = self.master() {
            tokio::select! {
                copied = copy_until_hang_up(&master, &mut buffer, &mut sink) => {
                    if let Err(e) = copied {
                        return log::warn!("the terminal's output is lost from here: {e}");
                    }
                }
                _ = life.wait_for(|life| *life == Life::Closed) => return,
            }
            drop(master);
            if *life.borrow() != Life::Open {
                return;
            }
            pause(&mut life).await;
        }
    }

    /// Copies what the client types until it closes its end, which closes the terminal.
    pub(crate) async fn copy_input(self: Arc<Self>, mut source: pipe::Receiver) {
        let mut buffer = vec![0; BUFFER];
        let mut life = self.life.subscribe();
        loop {
            let read = tokio::select! {
                read = source.read(&mut buffer) => read,
                _ = life.wait_for(|life| *life == Life::Closed) => return,
            };
            let mut rest = match read {
                Ok(0) => return self.close(),
                Ok(length) => &buffer[..length],
                Err(e) => return log::warn!("the terminal's input is lost from here: {e}"),
            };
            while !rest.is_empty() {
                let Some(master) = self.master() else { return };
                let written = tokio::select! {
                    written = write_some(&master, rest) => written,
                    _ = life.wait_for(|life| *life == Life::Closed) => return,
                };
                drop(master);
                match written {
                    Ok(0) if *life.borrow() != Life::Open => return,
                    Ok(0) => pause(&mut life).await,
                    Ok(length) => rest = &rest[length..],
                    Err(e) => return log::warn!("the terminal's input is lost from here: {e}"),
                }
            }
        }
    }
}

async fn pause(life: &mut watch::Receiver<Life>) {
    // Either outcome means: look again.
    let _ = tokio::time::timeout(HANG_UP_PAUSE, life.changed()).await;
}

/// Copies until the other side has hung up.
///
/// The registration with the reactor is new each time: after a hang-up an old one stays ready for ever.
async fn copy_until_hang_up(master: &OwnedFd, buffer: &mut [u8], sink: &mut Sink) -> io::Result<()> {
    let fd = sys::watch(master.try_clone()?, Interest::READABLE)?;
    loop {
        let mut guard = fd.readable().await?;
        let hung_up = guard.ready().is_read_closed();
        match guard.try_io(|fd| nix::unistd::read(fd.as_fd(), buffer).map_err(io::Error::from)) {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(length)) => sink.write(&buffer[..length]).await,
            Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Ok(()),
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(e)) => return Err(e),
            Err(_) if hung_up => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Writes what the terminal takes now; 0 when the other side has hung up.
async fn write_some(master: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let fd = sys::watch(master.try_clone()?, Interest::WRITABLE)?;
    loop {
        let mut guard = fd.writable().await?;
        let hung_up = guard.ready().is_write_closed();
        match guard.try_io(|fd| nix::unistd::write(fd.as_fd(), bytes).map_err(io::Error::from)) {
            Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Ok(0),
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
            Err(_) if hung_up => return Ok(0),
            Err(_) => {}
        }
    }
}
