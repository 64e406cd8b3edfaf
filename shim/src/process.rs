//! A process that containerd knows: a task's own, or one that was added by exec.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::child::{Child, Exit};
use crate::error::Error;
use crate::io::{Handle, ProcessIo, Stdio};
use crate::state::{Action, State, Step};

/// How long the announcement of an end waits for the last output. It is copied in far less, unless something
/// that outlives the process holds the stream or nobody reads it; then the rest is copied until the delete.
const LAST_OUTPUT: Duration = Duration::from_millis(100);
/// How long a delete waits for output that is not copied yet.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A process and what is known of it.
#[derive(Debug)]
pub(crate) struct Process {
    /// The container's id, or the exec's.
    pub(crate) id: String,
    pub(crate) stdio: Stdio,
    now: Mutex<Now>,
    io: tokio::sync::Mutex<Option<ProcessIo>>,
    exit: watch::Sender<Option<Exit>>,
    /// Held while a start is under way, so that its end is announced after it.
    pub(crate) announcements: tokio::sync::Mutex<()>,
    /// Held by each kill that is under way, so that the end is announced after it: containerd hangs up on a shim
    /// once its last task has ended, and a kill would be left without an answer.
    pub(crate) kills: tokio::sync::RwLock<()>,
}

#[derive(Debug)]
struct Now {
    state: State,
    pid: i32,
    child: Option<Arc<Child>>,
    /// The part of the streams that is worked on without waiting for anybody.
    handle: Option<Handle>,
    /// The client had no more input before there was somebody to read it.
    no_input: bool,
}

impl Process {
    pub(crate) fn new(id: String, stdio: Stdio) -> Self {
        Self {
            id,
            stdio,
            now: Mutex::new(Now {
                state: State::Created,
                pid: 0,
                child: None,
                handle: None,
                no_input: false,
            }),
            io: tokio::sync::Mutex::new(None),
            exit: watch::Sender::new(None),
            announcements: tokio::sync::Mutex::new(()),
            kills: tokio::sync::RwLock::new(()),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it a pid, whose end somebody must wait for, and its streams.
    pub(crate) async fn attach(&self, pid: i32, child: Arc<Child>, io: ProcessIo) {
        {
            let mut now = self.now();
            now.pid = pid;
            now.child = Some(child);
            let handle = now.handle.insert(io.handle()).clone();
            if now.no_input {
                handle.close_stdin();
            }
        }
        *self.io.lock().await = Some(io);
    }

    pub(crate) fn state(&self) -> State {
        self.now().state
    }

    /// 0 before it has one.
    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.now().pid).unwrap_or(0)
    }

    /// How it ended, when it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Whether `step` would be legal now.
    pub(crate) fn check(&self, step: Step) -> Result<(), Error> {
        Ok(self.state().after(step).map(|_| ())?)
    }

    pub(crate) fn permits(&self, action: Action) -> Result<(), Error> {
        Ok(self.state().permits(action)?)
    }

    /// Moves on.
    pub(crate) fn advance(&self, step: Step) -> Result<(), Error> {
        let mut now = self.now();
        now.state = now.state.after(step)?;
        Ok(())
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(exit) = *exit.borrow_and_update() {
                return exit;
            }
            // The sender is `self`: it does not go away meanwhile.
            let _ = exit.changed().await;
        }
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), Error> {
        let child = {
            let now = self.now();
            match (now.state, &now.child) {
                (State::Stopped | State::Deleted, _) => return Err(Error::Finished),
                (_, None) => return Err(Error::NotStarted),
                (_, Some(child)) => Arc::clone(child),
            }
        };
        child.signal(signal).map_err(|e| match e.raw_os_error() {
            Some(libc::ESRCH) => Error::Finished,
            _ => Error::io("signal", &self.id, e),
        })
    }

    /// Takes note of its end, so that a delete is legal, without telling who waits for it.
    pub(crate) async fn stopped(&self) {
        if let Some(handle) = &self.now().handle {
            handle.ended();
        }
        if let Some(io) = self.io.lock().await.as_mut() {
            io.drain(LAST_OUTPUT).await;
        }
        let mut now = self.now();
        // A task that was deleted before it ran has moved on already.
        now.state = now.state.after(Step::Exit).unwrap_or(now.state);
    }

    /// Tells who waits for it how it ended.
    pub(crate) fn announce(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    pub(crate) fn close_stdin(&self) {
        let mut now = self.now();
        now.no_input = true;
        if let Some(handle) = &now.handle {
            handle.close_stdin();
        }
    }

    /// Sets the size of its terminal. Whoever resizes need not know that it has ended.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        match &self.now().handle {
            Some(handle) => handle.resize(columns, rows),
            None => Ok(()),
        }
    }

    /// Waits for the last of its output and ends its streams.
    pub(crate) async fn close_io(&self) {
        let Some(mut io) = self.io.lock().await.take() else { return };
        if !io.drain(DRAIN_LIMIT).await {
            log::warn!("the output of {:?} did not end within {DRAIN_LIMIT:?} and is cut", self.id);
        }
        io.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn process() -> Process {
        Process::new("c".into(), Stdio::default())
    }

    #[tokio::test]
    async fn whoever_waits_learns_of_the_end_before_and_after_it() {
        let process = Arc::new(process());
        let waiter = tokio::spawn({
            let process = Arc::clone(&process);
            async move { process.wait().await }
        });
        tokio::task::yield_now().await;
        let exit = Exit { status: 7, at: OffsetDateTime::UNIX_EPOCH };
        process.stopped().await;
        assert_eq!(process.state(), State::Stopped);
        assert_eq!(process.exit(), None);
        process.announce(exit);
        assert_eq!(waiter.await.unwrap(), exit);
        assert_eq!(process.wait().await, exit);
    }

    #[tokio::test]
    async fn signals_need_a_living_process() {
        let process = process();
        assert!(matches!(process.signal(15), Err(Error::NotStarted)));
        process.stopped().await;
        assert!(matches!(process.signal(15), Err(Error::Finished)));
    }

    #[test]
    fn a_start_happens_once() {
        let process = process();
        process.advance(Step::Start).unwrap();
        assert!(matches!(process.advance(Step::Start), Err(Error::State(_))));
        assert_eq!(process.state(), State::Running);
    }
}
