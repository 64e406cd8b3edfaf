//! The destination's side of a migration.
//!
//! | file | what it does |
//! |---|---|
//! | `serve` | an accepted connection: a new migration, one of its data connections, or a question |
//! | `run` | an arrival from its begin to its report |
//! | `take_in` | the phases up to the commit |
//! | `fill` | rounds of memory, put in their places |
//! | `owing` | memory that follows the application, which runs |
//! | `decide` | release, and the way back from each phase |
//! | `attend` | the control connection while the destination works |

mod attend;
mod decide;
mod fill;
mod owing;
mod run;
mod serve;
mod take_in;

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::io::Read;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::ends::{EndError, Waiting};
use crate::faults::Faults;
use crate::hooks::Hooks;
use crate::id::MigrationId;
use crate::journal::{Journal, Record};
use crate::options::{Bounds, Limits, Wanted};
use crate::progress::Progress;
use crate::source::Counter;
use crate::transport::Connection;
pub use serve::Served;
use serve::Session;

/// A container that was found or made.
#[derive(Debug)]
pub struct Placed {
    /// It waits.
    pub waiting: Box<dyn Waiting>,
    /// What the daemon needs to find it again after a restart; given to hooks too.
    pub facts: Value,
}

/// The destination's host.
pub trait Host: Send + Sync {
    /// Whether the image's content must travel before the container can be made. Called only when one is to be made.
    ///
    /// # Errors
    /// When none may be made, or the recipe is none.
    fn lacks_image(&self, wanted: &Wanted) -> Result<bool, EndError>;

    /// Takes the image's content in.
    ///
    /// # Errors
    /// When it is damaged, or not the one that was announced.
    fn receive_image(&self, wanted: &Wanted, content: &mut dyn Read) -> Result<(), EndError>;

    /// Finds the container that waits for migration `id`, or makes it. One that was made is removed by [`Waiting::abandon`].
    ///
    /// # Errors
    /// When there is none, or it is not in standby, or `peer` may not use it.
    fn waiting(&self, id: MigrationId, peer: &str, wanted: &Wanted) -> Result<Placed, EndError>;

    /// The container of a migration that a daemon which has died had begun, wherever that had come to. Its record may have
    /// no facts yet. It is released or abandoned next; both must do what is left to do.
    ///
    /// # Errors
    /// When the container cannot be found out about.
    fn found(&self, record: &Record) -> Result<Box<dyn Waiting>, EndError>;

    /// What is owed to the application of a migration does not come any more.
    ///
    /// # Errors
    /// When whoever waits for it cannot be told.
    fn forsaken(&self, record: &Record, reason: &str) -> Result<(), EndError> {
        let _ = (record, reason);
        Ok(())
    }
}

/// Who is told of a migration that arrives.
pub type ProgressOf = dyn Fn(MigrationId) -> Arc<dyn Progress> + Send + Sync;

/// Takes migrations in. One for each daemon, shared by all its connections.
pub struct Destination {
    /// This host.
    pub host: Arc<dyn Host>,
    /// The operator's commands.
    pub hooks: Arc<dyn Hooks>,
    /// This host's journal.
    pub journal: Arc<Journal>,
    /// Who is told.
    pub progress: Arc<ProgressOf>,
    /// For tests.
    pub faults: Arc<dyn Faults>,
    /// Time limits.
    pub limits: Limits,
    /// What may be kept in memory.
    pub bounds: Bounds,
    /// Where what this host owes others is fetched.
    pub counter: Arc<Counter>,
    sessions: Mutex<HashMap<MigrationId, Arc<Session>>>,
}

impl Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Destination {
    /// For a host, with neither hooks nor anybody who is told, and default limits; all fields may be changed.
    #[must_use]
    pub fn new(host: Arc<dyn Host>, journal: Arc<Journal>) -> Self {
        Self {
            host,
            hooks: Arc::new(crate::hooks::NoHooks),
            journal,
            progress: Arc::new(|_| Arc::new(crate::progress::NoProgress)),
            faults: Arc::new(crate::faults::NoFaults),
            limits: Limits::default(),
            bounds: Bounds::default(),
            counter: Arc::default(),
            sessions: Mutex::default(),
        }
    }

    /// Takes an accepted connection of host `peer`, which its certificate names. Returns when it is of no more use: for a
    /// migration, when that has ended; for one of its data connections, at once.
    pub fn serve(&self, connection: Box<dyn Connection>, peer: &str) -> Served {
        serve::serve(self, connection, peer)
    }

    /// Gives all up that is not decided; for a daemon that ends. Those that are decided go on to their end.
    pub fn leave(&self) {
        serve::leave(self);
    }
}
