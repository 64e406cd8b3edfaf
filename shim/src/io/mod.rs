//! The standard streams of a process: what containerd asks for, what the process gets, and what lies between.
//!
//! | asked for | the process gets | and the shim |
//! |---|---|---|
//! | nothing | `/dev/null` | |
//! | a FIFO, `file://` | a pipe | copies ([`copy`]) |
//! | `binary://` | a pipe that the program reads | waits for it ([`logger`]) |
//! | a terminal | a pty, made by runc | copies from and to its master ([`console`]) |
//!
//! The process never gets the FIFO or file itself: CRIU cannot dump what lies outside the container.

mod console;
mod copy;
mod logger;
mod uri;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastmig_engine::StdioFds;
use nix::fcntl::OFlag;
use nix::unistd::{fchown, pipe2, Gid, Uid};
use tokio::net::unix::pipe;
use tokio::task::{AbortHandle, JoinHandle};

use self::console::{Console, ConsoleSocket};
use self::copy::Sink;
use self::logger::{Logger, Streams};
use self::uri::Target;
use crate::error::Error;
use crate::reaper::Reaper;

/// The streams as containerd asked for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Who the streams belong to.
#[derive(Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) id: &'a str,
    pub(crate) namespace: &'a str,
    /// The pipes' owner, from the options.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Streams that are laid but for the terminal, which runc has yet to send.
#[derive(Debug)]
pub(crate) struct Laid {
    io: ProcessIo,
    stdio: Stdio,
    terminal: Option<ConsoleSocket>,
    /// The end of the output when there is a terminal.
    output: Option<Sink>,
}

/// The streams of a process in use. Dropped, they are cut.
#[derive(Debug, Default)]
pub(crate) struct ProcessIo {
    outputs: Vec<JoinHandle<()>>,
    handle: Handle,
    logger: Option<Logger>,
}

/// What can be done to streams in use without waiting for anybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle {
    input: Option<AbortHandle>,
    /// The writing end of the client's FIFO: while it is held, a client that goes away is no end of input.
    stdin_hold: Arc<Mutex<Option<pipe::Sender>>>,
    console: Option<Arc<Console>>,
}

impl Laid {
    /// Lays the streams; the second part is for the process.
    pub(crate) async fn new(
        stdio: &Stdio,
        owner: &Owner<'_>,
        reaper: &Arc<Reaper>,
    ) -> Result<(Self, StdioFds), Error> {
        let mut laid = Self { io: ProcessIo::default(), stdio: stdio.clone(), terminal: None, output: None };
        let target = Target::parse(&stdio.stdout)?;
        if stdio.terminal {
            laid.terminal = Some(ConsoleSocket::bind()?);
            laid.output = Some(laid.terminal_output(target, owner, reaper).await?);
            return Ok((laid, StdioFds::default()));
        }
        let mut fds = StdioFds::default();
        if let Target::Binary(binary) = target {
            let (logger, Streams { stdout, stderr }) =
                Logger::start(binary, owner.id, owner.namespace, reaper).await?;
            laid.io.logger = Some(logger);
            (fds.stdout, fds.stderr) = (Some(stdout), Some(stderr));
        } else {
            let stderr = Target::parse(&stdio.stderr)?;
            fds.stdout = laid.io.output(target, owner).await?;
            fds.stderr = laid.io.output(stderr, owner).await?;
        }
        fds.stdin = laid.io.input(&stdio.stdin, owner)?;
        Ok((laid, fds))
    }

    async fn terminal_output(
        &mut self,
        target: Target,
        owner: &Owner<'_>,
        reaper: &Arc<Reaper>,
    ) -> Result<Sink, Error> {
        match target {
            Target::Binary(binary) => {
                let (logger, streams) = Logger::start(binary, owner.id, owner.namespace, reaper).await?;
                self.io.logger = Some(logger);
                Sink::pipe(streams.stdout)
            }
            other => Ok(open(other).await?.unwrap_or_else(Sink::null)),
        }
    }

    /// Where runc shall send the terminal.
    pub(crate) fn console_socket(&self) -> Option<&Path> {
        self.terminal.as_ref().map(ConsoleSocket::path)
    }

    /// Connects the terminal, if there is one, now that the process is there.
    pub(crate) async fn connect(mut self) -> Result<ProcessIo, Error> {
        let Some(socket) = self.terminal.take() else { return Ok(self.io) };
        let console = Console::new(socket.receive().await?)?;
        if let Some(sink) = self.output.take() {
            self.io.outputs.push(tokio::spawn(Arc::clone(&console).copy_output(sink)));
        }
        if let Some((source, hold)) = open_stdin(&self.stdio.stdin)? {
            let input = tokio::spawn(Arc::clone(&console).copy_input(source));
            self.io.handle.set_input(&input, hold);
        }
        self.io.handle.console = Some(console);
        Ok(self.io)
    }
}

impl ProcessIo {
    async fn output(&mut self, target: Target, owner: &Owner<'_>) -> Result<Option<OwnedFd>, Error> {
        let Some(sink) = open(target).await? else { return Ok(None) };
        let (read, write) = make_pipe(owner)?;
        let source = pipe::Receiver::from_owned_fd(read).map_err(pipe_error)?;
        self.outputs.push(tokio::spawn(copy::output(source, sink)));
        Ok(Some(write))
    }

    fn input(&mut self, path: &str, owner: &Owner<'_>) -> Result<Option<OwnedFd>, Error> {
        let Some((source, hold)) = open_stdin(path)? else { return Ok(None) };
        let (read, write) = make_pipe(owner)?;
        let sink = pipe::Sender::from_owned_fd(write).map_err(pipe_error)?;
        self.handle.set_input(&tokio::spawn(copy::input(source, sink)), hold);
        Ok(Some(read))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until all output is copied, but not longer than `limit`: a process that left the container's
    /// tree can hold a stream for ever. Whether all is copied.
    pub(crate) async fn drain(&mut self, limit: Duration) -> bool {
        let all = async {
            while let Some(output) = self.outputs.last_mut() {
                if let Err(e) = output.await {
                    log::warn!("a copy broke off: {e}");
                }
                self.outputs.pop();
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// Cuts what is left, and waits for the logger.
    pub(crate) async fn close(mut self) {
        let logger = self.logger.take();
        drop(self);
        if let Some(logger) = logger {
            logger.finish().await;
        }
    }
}

impl Handle {
    fn set_input(&mut self, copy: &JoinHandle<()>, hold: pipe::Sender) {
        self.input = Some(copy.abort_handle());
        self.stdin_hold = Arc::new(Mutex::new(Some(hold)));
    }

    /// Lets the process see the end of its input once the client has closed it.
    pub(crate) fn close_stdin(&self) {
        self.stdin_hold.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sets the size of the terminal, if there is one.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        match &self.console {
            Some(console) => {
                console.resize(columns, rows).map_err(|e| Error::io("resize", "the terminal", e))
            }
            None => Ok(()),
        }
    }

    /// The process has ended: what it wrote is all that comes.
    pub(crate) fn ended(&self) {
        if let Some(console) = &self.console {
            console.ended();
        }
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

impl Drop for ProcessIo {
    fn drop(&mut self) {
        for copy in &self.outputs {
            copy.abort();
        }
        self.handle.ended();
        self.handle.close_stdin();
        if let Some(console) = &self.handle.console {
            console.close();
        }
    }
}

async fn open(target: Target) -> Result<Option<Sink>, Error> {
    match target {
        Target::Null => Ok(None),
        Target::Path(path) => Sink::open(&path).await.map(Some),
        Target::File(path) => Sink::append(&path).await.map(Some),
        Target::Binary(_) => {
            Err(Error::Invalid { what: "stdio URI", reason: "a logger takes both streams or none".into() })
        }
    }
}

/// The client's FIFO, and a writing end of it to hold.
fn open_stdin(path: &str) -> Result<Option<(pipe::Receiver, pipe::Sender)>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    let error = |e| Error::io("open", path, e);
    let source = pipe::OpenOptions::new().open_receiver(path).map_err(error)?;
    let hold = pipe::OpenOptions::new().open_sender(path).map_err(error)?;
    Ok(Some((source, hold)))
}

fn make_pipe(owner: &Owner<'_>) -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|e| pipe_error(e.into()))?;
    if owner.uid != 0 || owner.gid != 0 {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fchown(&read, Some(uid), Some(gid)).map_err(|e| pipe_error(e.into()))?;
    }
    Ok((read, write))
}

fn pipe_error(e: std::io::Error) -> Error {
    Error::io("set up", "a pipe", e)
}

#[cfg(test)]
mod tests;
