//! What was decided, on disk before it is acted on.
//!
//! A directory with one file for each migration and role. The file's first line is the record, each further line a change; a
//! line is written whole and synchronised before anybody acts on it. A torn last line was never acted on, and is cut off.
//!
//! | file | what it does |
//! |---|---|
//! | `record` | what is known of one migration |
//! | `file` | lines of JSON that survive a crash |

mod file;
mod record;

use std::collections::hash_map::Entry as Slot;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::MigrationId;
use crate::report::Report;
use crate::state::{IllegalStep, State};
use file::Lines;
use record::Change;
pub use record::{Record, Role, Serving};

/// Finished migrations that are remembered.
pub const HISTORY: usize = 200;

/// Why the journal cannot say or keep something.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that somebody else wrote, or a broken disk.
    #[error("{path} is damaged ({reason}): what was decided in this migration is not known; look on both hosts where its application runs, then move the file away")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The migration is known already.
    #[error("migration {0} was tried before: its messages are too late, or sent again")]
    Known(MigrationId),
    /// It was never begun here, or has been forgotten.
    #[error("migration {0} is not known here")]
    Unknown(MigrationId),
    /// Something else was decided.
    #[error(transparent)]
    Illegal(#[from] IllegalStep),
}

type Key = (MigrationId, Role);

/// The journal of a host. One process may have it open.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    records: Mutex<HashMap<Key, Kept>>,
}

#[derive(Debug)]
enum Kept {
    Whole {
        record: Box<Record>,
        lines: Lines,
    },
    /// What it says cannot be trusted, or may not be on disk.
    Damaged {
        path: PathBuf,
        reason: String,
    },
}

impl Journal {
    /// Opens the journal in `directory`, and makes that when it is not there.
    ///
    /// # Errors
    /// When it cannot be read. A damaged record is no error before it is needed: see [`Journal::damaged`].
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        file::make_directory(directory)?;
        let mut records = HashMap::new();
        let listing = fs::read_dir(directory).map_err(file::failed("list", directory))?;
        for entry in listing {
            let path = entry.map_err(file::failed("list", directory))?.path();
            let Some(key) = path.file_name().and_then(|name| key_of(name.to_str()?)) else {
                continue;
            };
            if let Some(kept) = load(&path, key)? {
                records.insert(key, kept);
            }
        }
        Ok(Self { directory: directory.to_owned(), records: Mutex::new(records) })
    }

    /// Files that cannot be trusted, and why.
    pub fn damaged(&self) -> Vec<JournalError> {
        let records = self.lock();
        let damaged = records.values().filter_map(|kept| match kept {
            Kept::Whole { .. } => None,
            Kept::Damaged { path, reason } => {
                Some(JournalError::Damaged { path: path.clone(), reason: reason.clone() })
            }
        });
        damaged.collect()
    }

    /// All that is known, oldest first.
    pub fn history(&self) -> Vec<Record> {
        let records = self.lock();
        let whole = records.values().filter_map(|kept| match kept {
            Kept::Whole { record, .. } => Some((**record).clone()),
            Kept::Damaged { .. } => None,
        });
        let mut records: Vec<_> = whole.collect();
        records.sort_by(|a, b| (&a.begun, a.id).cmp(&(&b.begun, b.id)));
        records
    }

    /// Those that are not finished, or whose other host does not know yet that they are.
    pub fn open_records(&self) -> Vec<Record> {
        let mut records = self.history();
        let unsettled = |record: &Record| record.state == State::Done && !record.settled;
        records.retain(|record| !record.state.is_final() || unsettled(record));
        records
    }

    /// One of them.
    ///
    /// # Errors
    /// When it is not known, or damaged.
    pub fn record(&self, id: MigrationId, role: Role) -> Result<Record, JournalError> {
        match self.lock().get(&(id, role)) {
            Some(Kept::Whole { record, .. }) => Ok((**record).clone()),
            Some(Kept::Damaged { path, reason }) => {
                Err(JournalError::Damaged { path: path.clone(), reason: reason.clone() })
            }
            None => Err(JournalError::Unknown(id)),
        }
    }

    /// Begins a record. A migration that is known already is refused.
    pub(crate) fn begin(&self, record: Record) -> Result<(), JournalError> {
        let mut records = self.lock();
        forget_old(&mut records);
        let path = self.directory.join(name_of((record.id, record.role)));
        match records.entry((record.id, record.role)) {
            Slot::Occupied(_) => Err(JournalError::Known(record.id)),
            Slot::Vacant(slot) => {
                let mut lines = Lines::create(&path, &record)?;
                if record.state.is_final() {
                    lines.rest();
                }
                slot.insert(Kept::Whole { record: Box::new(record), lines });
                Ok(())
            }
        }
    }

    /// Makes a step, once it is on disk.
    pub(crate) fn step(
        &self,
        id: MigrationId,
        role: Role,
        to: State,
        reason: Option<&str>,
    ) -> Result<(), JournalError> {
        self.change(id, role, |record| {
            let to = record.state.step(to)?;
            Ok(Change { state: Some(to), reason: reason.map(str::to_owned), ..Change::now() })
        })
    }

    /// A source's step to the decision, and what it takes to serve what it owes then.
    pub(crate) fn step_to_decision(
        &self,
        id: MigrationId,
        serving: Option<Serving>,
    ) -> Result<(), JournalError> {
        self.change(id, Role::Source, |record| {
            let to = record.state.step(State::Deciding)?;
            Ok(Change { state: Some(to), serving, ..Change::now() })
        })
    }

    /// Makes a step that the other host's decision, or presumption, makes true whether or not it is on disk here.
    pub(crate) fn note_step(&self, id: MigrationId, role: Role, to: State, reason: Option<&str>) {
        if let Err(error) = self.step(id, role, to, reason) {
            tracing::warn!(migration = %id, ?to, error = &error as &dyn std::error::Error, "the journal does not take a step");
        }
    }

    /// Keeps what the daemon must know to find the container again.
    pub(crate) fn locate(
        &self,
        id: MigrationId,
        role: Role,
        facts: serde_json::Value,
    ) -> Result<(), JournalError> {
        self.change(id, role, |_| Ok(Change { facts: Some(facts), ..Change::now() }))
    }

    /// Keeps the report.
    pub(crate) fn report(&self, report: &Report, role: Role) {
        let change = |_: &Record| Ok(Change { report: Some(report.clone()), ..Change::now() });
        if let Err(error) = self.change(report.id, role, change) {
            tracing::warn!(migration = %report.id, error = &error as &dyn std::error::Error, "the journal does not take a report");
        }
    }

    /// The other host needs the record no more.
    pub(crate) fn settle(&self, id: MigrationId, role: Role) -> Result<(), JournalError> {
        self.change(id, role, |_| Ok(Change { settled: Some(true), ..Change::now() }))
    }

    /// What the destination has decided; nothing decided becomes aborted, for good, known here or not. Only the source that
    /// began the migration may ask.
    pub(crate) fn decide(&self, id: MigrationId, peer: &str) -> Result<State, JournalError> {
        let role = Role::Destination;
        match self.record(id, role) {
            Ok(record) if record.peer != peer => Err(JournalError::Unknown(id)),
            Ok(record) if matches!(record.state, State::Preparing | State::Held) => {
                let reason = "the source asked for the decision before its commit arrived";
                match self.step(id, role, State::Abandoning, Some(reason)) {
                    Ok(()) => Ok(State::Abandoning),
                    // Somebody was faster.
                    Err(JournalError::Illegal(step)) => Ok(step.from),
                    Err(error) => Err(error),
                }
            }
            Ok(record) => Ok(record.state),
            Err(JournalError::Unknown(_)) => {
                self.begin(Record::refused(id, peer))?;
                Ok(State::Abandoned)
            }
            Err(error) => Err(error),
        }
    }

    fn change(
        &self,
        id: MigrationId,
        role: Role,
        change: impl FnOnce(&Record) -> Result<Change, JournalError>,
    ) -> Result<(), JournalError> {
        let mut records = self.lock();
        let kept = records.get_mut(&(id, role)).ok_or(JournalError::Unknown(id))?;
        let Kept::Whole { record, lines } = kept else {
            drop(records);
            return self.record(id, role).map(|_| ());
        };
        let change = change(record)?;
        match lines.append(&change) {
            Ok(()) => {
                record.apply(change);
                if record.state.is_final() {
                    lines.rest();
                }
                Ok(())
            }
            Err(file::AppendError::Undone(error)) => Err(error),
            Err(file::AppendError::Unknown(error)) => {
                let (path, reason) = (lines.path().to_owned(), error.to_string());
                *kept = Kept::Damaged { path, reason };
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        // A record is replaced after its line is on disk, never half.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(path: &Path, key: Key) -> Result<Option<Kept>, JournalError> {
    match Lines::load(path) {
        Ok(Some((record, mut lines))) if (record.id, record.role) == key => {
            if record.state.is_final() {
                lines.rest();
            }
            Ok(Some(Kept::Whole { record: Box::new(record), lines }))
        }
        Ok(Some(_)) => {
            Ok(Some(Kept::Damaged { path: path.to_owned(), reason: "it is of another migration".to_owned() }))
        }
        // Its first line was never whole: nothing was begun.
        Ok(None) => {
            fs::remove_file(path).map_err(file::failed("remove", path))?;
            Ok(None)
        }
        Err(JournalError::Damaged { path, reason }) => {
            tracing::error!(path = %path.display(), reason, "a record of a migration is damaged");
            Ok(Some(Kept::Damaged { path, reason }))
        }
        Err(error) => Err(error),
    }
}

/// Forgets the oldest of those that are finished and that nobody will ask for.
fn forget_old(records: &mut HashMap<Key, Kept>) {
    let finished = records.iter().filter_map(|(key, kept)| match kept {
        Kept::Whole { record, .. } if record.may_be_forgotten() => Some((record.begun.clone(), *key)),
        _ => None,
    });
    let mut finished: Vec<_> = finished.collect();
    finished.sort();
    let too_many = (finished.len() + 1).saturating_sub(HISTORY);
    for (_, key) in finished.into_iter().take(too_many) {
        if let Some(Kept::Whole { lines, .. }) = records.get(&key) {
            if let Err(error) = lines.remove() {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot forget an old migration");
                continue;
            }
        }
        records.remove(&key);
    }
}

fn name_of((id, role): Key) -> String {
    format!("{id}.{}", role.name())
}

fn key_of(name: &str) -> Option<Key> {
    let (id, role) = name.split_once('.')?;
    let role = [Role::Source, Role::Destination].into_iter().find(|known| known.name() == role)?;
    Some((id.parse().ok()?, role))
}

#[cfg(test)]
mod tests;
