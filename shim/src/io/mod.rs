//! The standard streams of a process: what containerd asks for, what the process gets, and what lies between.
//!
//! | asked for | the process gets | the shim |
//! |---|---|---|
//! | nothing | `/dev/null` | |
//! | a FIFO, `file://` | a pipe | copies ([`copy`]) |
//! | `binary://` | a pipe that the program reads | waits for it ([`logger`]) |
//! | a terminal | a pty, made by runc | copies from and to its master ([`console`]) |
//!
//! The process never gets the FIFO or file itself: CRIU cannot dump what lies outside the container.

mod console;
mod copy;
mod laid;
mod logger;
mod uri;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::task::{AbortHandle, JoinHandle};

use self::console::Console;
pub(crate) use self::laid::Laid;
use self::logger::Logger;
pub(crate) use self::uri::Target;
use crate::error::Error;

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

impl ProcessIo {
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

#[cfg(test)]
mod tests;
