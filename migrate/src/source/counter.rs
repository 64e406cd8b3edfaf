//! Where destinations come for what they are owed, over connections that they make. Whoever fetches it there is no daemon, and may
//! outlive one; so is it here with the connections, which the daemon that serves takes over as they come.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::id::MigrationId;
use crate::images::MemoryServer;
use crate::wire::{Channel, Token};

/// How often a thread that waits looks whether it is still needed.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Connections that nobody has taken over yet, of one migration.
const MOST_WAITING: usize = 64;

/// All migrations whose destinations may come. One for each daemon.
#[derive(Debug, Default)]
pub struct Counter {
    desks: Mutex<HashMap<MigrationId, Arc<Desk>>>,
}

/// One of them.
pub(crate) struct Desk {
    peer: String,
    token: Token,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Channel>,
    all_is_there: Option<Here>,
}

/// What was owed is all there, says whoever fetched it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) bytes: u64,
    pub(crate) faults: u64,
    pub(crate) milliseconds: u64,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A desk, until dropped.
#[derive(Debug)]
pub(crate) struct OpenDesk<'a> {
    counter: &'a Counter,
    id: MigrationId,
    desk: Arc<Desk>,
}

impl Counter {
    pub(crate) fn open(&self, id: MigrationId, peer: &str, token: &str) -> OpenDesk<'_> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let desk = Arc::new(Desk { peer: peer.to_owned(), token: token.to_owned(), state, changed });
        self.desks().insert(id, Arc::clone(&desk));
        OpenDesk { counter: self, id, desk }
    }

    /// The one of a migration, for the host and with the secret that belong to it.
    pub(crate) fn find(&self, id: MigrationId, peer: &str, token: &str) -> Option<Arc<Desk>> {
        let desk = self.desks().get(&id).cloned();
        desk.filter(|desk| desk.peer == peer && desk.token == token)
    }

    fn desks(&self) -> MutexGuard<'_, HashMap<MigrationId, Arc<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenDesk<'_> {
    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }
}

impl Drop for OpenDesk<'_> {
    fn drop(&mut self) {
        self.counter.desks().remove(&self.id);
    }
}

impl Desk {
    /// A connection for whoever serves. Given back where too many wait.
    pub(crate) fn come(&self, channel: Channel) -> Result<(), Box<Channel>> {
        let mut state = self.lock();
        if state.waiting.len() >= MOST_WAITING {
            return Err(Box::new(channel));
        }
        state.waiting.push_back(channel);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn note_here(&self, here: Here) {
        self.lock().all_is_there = Some(here);
    }

    /// Means nothing before it is known that the destination has committed.
    pub(crate) fn here(&self) -> Option<Here> {
        self.lock().all_is_there
    }

    /// Serves one connection after the other until the server stops. What each of several threads does.
    pub(crate) fn serve_on(&self, server: &MemoryServer<'_>) {
        while !server.is_stopped() {
            let next = self.lock().waiting.pop_front();
            match next {
                Some(mut channel) => server.serve(&mut channel),
                None => drop(self.changed.wait_timeout(self.lock(), LOOK_UP)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
