//! The copies between a container's pipes and what containerd gave for them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tokio::fs::OpenOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::error::Error;

const BUFFER: usize = 32 * 1024;

/// Where a stream is written to.
#[derive(Debug)]
pub(crate) struct Sink {
    name: PathBuf,
    end: End,
    failed: bool,
}

#[derive(Debug)]
enum End {
    /// A FIFO, opened for reading too: a reader that comes late or goes away is no error.
    Fifo(pipe::Sender),
    File(tokio::fs::File),
    Pipe(pipe::Sender),
    /// Nobody wants it, but it must be read: a full terminal stops who writes to it.
    Null,
}

impl Sink {
    /// A FIFO or a file that is there.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let error = |e| Error::io("open", path, e);
        let metadata = tokio::fs::metadata(path).await.map_err(error)?;
        let end = if metadata.file_type().is_fifo() {
            End::Fifo(pipe::OpenOptions::new().read_write(true).open_sender(path).map_err(error)?)
        } else {
            End::File(OpenOptions::new().append(true).open(path).await.map_err(error)?)
        };
        Ok(Self { name: path.into(), end, failed: false })
    }

    /// A file that is made when missing, with the directories above it.
    pub(crate) async fn append(path: &Path) -> Result<Self, Error> {
        let error = |e| Error::io("open", path, e);
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(error)?;
        }
        let file =
            OpenOptions::new().append(true).create(true).mode(0o644).open(path).await.map_err(error)?;
        Ok(Self { name: path.into(), end: End::File(file), failed: false })
    }

    /// A pipe that another program reads.
    pub(crate) fn pipe(fd: OwnedFd) -> Result<Self, Error> {
        let sender = pipe::Sender::from_owned_fd(fd).map_err(|e| Error::io("write to", "a logger", e))?;
        Ok(Self { name: "logger".into(), end: End::Pipe(sender), failed: false })
    }

    /// Nowhere.
    pub(crate) fn null() -> Self {
        Self { name: "/dev/null".into(), end: End::Null, failed: false }
    }

    /// Writes all of it. What cannot be written is dropped, and said so once: an application does not stand
    /// still because its log is full.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let result = match &mut self.end {
            End::Fifo(sender) | End::Pipe(sender) => sender.write_all(bytes).await,
            // Only a flush says whether the write came to something.
            End::File(file) => match file.write_all(bytes).await {
                Ok(()) => file.flush().await,
                Err(e) => Err(e),
            },
            End::Null => Ok(()),
        };
        match result {
            Ok(()) => self.failed = false,
            Err(e) if !self.failed => {
                self.failed = true;
                log::warn!("output for {:?} is dropped: {e}", self.name);
            }
            Err(_) => {}
        }
    }
}

/// Copies a process's output until everybody has closed it.
pub(crate) async fn output(mut source: pipe::Receiver, mut sink: Sink) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match read(&mut source, &mut buffer).await {
            Ok(0) => return,
            Ok(length) => sink.write(&buffer[..length]).await,
            Err(e) => return log::warn!("output for {:?} is lost from here: {e}", sink.name),
        }
    }
}

/// Copies a client's input until it closes its end, or the process its own.
pub(crate) async fn input(mut source: pipe::Receiver, mut sink: pipe::Sender) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match read(&mut source, &mut buffer).await {
            Ok(0) => return,
            Ok(length) => {
                if let Err(e) = sink.write_all(&buffer[..length]).await {
                    return log::debug!("input is no longer read: {e}");
                }
            }
            Err(e) => return log::warn!("input is lost from here: {e}"),
        }
    }
}

async fn read(source: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer).await {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
