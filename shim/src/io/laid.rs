//! Streams that are laid before the process is made, and used once it is there: what a runc that fails says on
//! them is in the error already.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use fastmig_engine::StdioFds;
use nix::fcntl::OFlag;
use nix::unistd::{fchown, pipe2, Gid, Uid};
use tokio::net::unix::pipe;

use super::console::{Console, ConsoleSocket};
use super::copy::{self, Sink};
use super::logger::{self, Logger};
use super::uri::Target;
use super::{Owner, ProcessIo, Stdio};
use crate::error::Error;
use crate::reaper::Reaper;

/// Streams that nothing is copied over yet.
#[derive(Debug)]
pub(crate) struct Laid {
    streams: Streams,
    /// The client's FIFO. It is opened last: who has written to it may say at once that this was all.
    stdin: String,
    logger: Option<Logger>,
}

#[derive(Debug)]
enum Streams {
    /// The shim's ends of the process's pipes. A logger has the other ends itself.
    Pipes { outputs: Vec<(pipe::Receiver, Sink)>, input: Option<pipe::Sender> },
    /// A terminal that runc has yet to send.
    Terminal { socket: ConsoleSocket, output: Sink },
}

/// The client's FIFO.
#[derive(Debug)]
struct Stdin {
    source: pipe::Receiver,
    /// A writing end of it, so that a client that goes away is no end of input.
    hold: pipe::Sender,
}

impl Laid {
    /// Lays the streams; the second part is for the process.
    pub(crate) async fn new(
        stdio: &Stdio,
        owner: &Owner<'_>,
        reaper: &Arc<Reaper>,
    ) -> Result<(Self, StdioFds), Error> {
        let mut logger = None;
        let mut logged = None;
        let stdout = match Target::parse(&stdio.stdout)? {
            Target::Binary(binary) => {
                let (started, streams) = Logger::start(binary, owner.id, owner.namespace, reaper).await?;
                (logger, logged) = (Some(started), Some(streams));
                Target::Null
            }
            other => other,
        };
        let (streams, fds) = if stdio.terminal {
            Streams::terminal(stdout, logged).await?
        } else {
            Streams::pipes(stdout, &stdio.stderr, !stdio.stdin.is_empty(), logged, owner).await?
        };
        Ok((Self { streams, stdin: stdio.stdin.clone(), logger }, fds))
    }

    /// Where runc shall send the terminal.
    pub(crate) fn console_socket(&self) -> Option<&Path> {
        match &self.streams {
            Streams::Terminal { socket, .. } => Some(socket.path()),
            Streams::Pipes { .. } => None,
        }
    }

    /// Begins to copy, now that the process is there.
    pub(crate) async fn connect(self) -> Result<ProcessIo, Error> {
        let mut io = ProcessIo::default();
        io.logger = self.logger;
        let stdin = Stdin::open(&self.stdin)?;
        match self.streams {
            Streams::Pipes { outputs, input } => {
                let copies = outputs.into_iter().map(|(source, sink)| copy::output(source, sink));
                io.outputs.extend(copies.map(tokio::spawn));
                if let (Some(stdin), Some(sink)) = (stdin, input) {
                    io.handle.set_input(&tokio::spawn(copy::input(stdin.source, sink)), stdin.hold);
                }
            }
            Streams::Terminal { socket, output } => {
                let console = Console::new(socket.receive().await?)?;
                io.outputs.push(tokio::spawn(Arc::clone(&console).copy_output(output)));
                if let Some(stdin) = stdin {
                    let copy = tokio::spawn(Arc::clone(&console).copy_input(stdin.source));
                    io.handle.set_input(&copy, stdin.hold);
                }
                io.handle.console = Some(console);
            }
        }
        Ok(io)
    }
}

impl Streams {
    async fn terminal(stdout: Target, logged: Option<logger::Streams>) -> Result<(Self, StdioFds), Error> {
        let output = match logged {
            Some(streams) => Sink::pipe(streams.stdout)?,
            None => open(stdout).await?.unwrap_or_else(Sink::null),
        };
        Ok((Self::Terminal { socket: ConsoleSocket::bind()?, output }, StdioFds::default()))
    }

    async fn pipes(
        stdout: Target,
        stderr: &str,
        has_input: bool,
        logged: Option<logger::Streams>,
        owner: &Owner<'_>,
    ) -> Result<(Self, StdioFds), Error> {
        let mut outputs = Vec::new();
        let mut fds = StdioFds::default();
        if let Some(streams) = logged {
            (fds.stdout, fds.stderr) = (Some(streams.stdout), Some(streams.stderr));
        } else {
            let stderr = Target::parse(stderr)?;
            for (target, fd) in [(stdout, &mut fds.stdout), (stderr, &mut fds.stderr)] {
                let Some(sink) = open(target).await? else { continue };
                let (read, write) = make_pipe(owner)?;
                outputs.push((pipe::Receiver::from_owned_fd(read).map_err(pipe_error)?, sink));
                *fd = Some(write);
            }
        }
        let mut input = None;
        if has_input {
            let (read, write) = make_pipe(owner)?;
            input = Some(pipe::Sender::from_owned_fd(write).map_err(pipe_error)?);
            fds.stdin = Some(read);
        }
        Ok((Self::Pipes { outputs, input }, fds))
    }
}

impl Stdin {
    fn open(path: &str) -> Result<Option<Self>, Error> {
        if path.is_empty() {
            return Ok(None);
        }
        let error = |e| Error::io("open", path, e);
        let source = pipe::OpenOptions::new().open_receiver(path).map_err(error)?;
        let hold = pipe::OpenOptions::new().open_sender(path).map_err(error)?;
        Ok(Some(Self { source, hold }))
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

/// The reading and the writing end.
pub(super) fn make_pipe(owner: &Owner<'_>) -> Result<(OwnedFd, OwnedFd), Error> {
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
