//! The source's side of a migration.
//!
//! | file | what it does |
//! |---|---|
//! | `run` | a departure from its begin to its report |
//! | `travel` | the phases up to a destination that holds the restored application |
//! | `rounds` | memory that travels while the application runs |
//! | `pace` | when that comes to an end |
//! | `serve` | what is owed after the commit (`again`: by a daemon that has started anew; `counter`: where it is fetched) |
//! | `decide` | commit, and the way back from each phase |
//! | `ask` | how did the destination decide? |

pub(crate) mod again;
pub(crate) mod ask;
pub(crate) mod counter;
mod decide;
pub(crate) mod pace;
mod rounds;
mod run;
mod serve;
mod travel;

use std::fmt::{self, Debug};
use std::io::Write;

use serde_json::Value;

use crate::cancel::Cancel;
use crate::ends::{EndError, Leaving};
use crate::faults::Faults;
use crate::hooks::Hooks;
use crate::id::MigrationId;
use crate::journal::{Journal, Record};
use crate::options::{Options, Wanted};
use crate::progress::Progress;
use crate::report::Report;
use crate::transport::Dialer;
pub use counter::Counter;

/// What is to move, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// A new name.
    pub id: MigrationId,
    /// The other host, as people call it.
    pub peer: String,
    /// What the destination is asked for.
    pub wanted: Wanted,
    /// What the daemon needs to find its container again after a restart; given to hooks too.
    pub facts: Value,
    /// How.
    pub options: Options,
}

/// The source's host, beyond the application that leaves.
pub trait Origin: Send + Sync {
    /// Writes the content of the container's image, for a destination that lacks it.
    ///
    /// # Errors
    /// When it cannot be read, or `out` not be written.
    fn send_image(&self, wanted: &Wanted, out: &mut dyn Write) -> Result<(), EndError>;

    /// The application of a migration that a daemon which has died began, wherever that had come to: it may run, or stand
    /// still, or be gone. It is resumed or ended next; both must do what is left to do.
    ///
    /// # Errors
    /// When the container cannot be found out about.
    fn found(&self, record: &Record) -> Result<Box<dyn Leaving>, EndError>;
}

/// All that a migration's source works with.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Connects to the destination.
    pub dialer: &'a dyn Dialer,
    /// This host.
    pub origin: &'a dyn Origin,
    /// The operator's commands.
    pub hooks: &'a dyn Hooks,
    /// This host's journal.
    pub journal: &'a Journal,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// For tests.
    pub faults: &'a dyn Faults,
    /// How it is told to stop.
    pub cancel: &'a Cancel,
    /// Where what is owed is fetched.
    pub counter: &'a Counter,
}

impl Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("journal", self.journal).finish_non_exhaustive()
    }
}

impl Source<'_> {
    /// Moves an application. Returns when it runs on one host and never will on the other, or, if it is told to leave, when
    /// that is for the next start to find out; the report says which. The journal has the report as well.
    #[must_use]
    pub fn run(&self, leaving: Box<dyn Leaving>, plan: &Plan) -> Report {
        run::run(self, leaving, plan)
    }
}
