//! One operation on disk: as it was asked for, and as it ended.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fastmig_api::operation::{Kind, State};
use fastmig_api::{Code, ErrorInfo, Operation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// So many operations that have ended are remembered; the oldest go. A key is known as long as its operation.
pub(super) const REMEMBERED: usize = 1000;

/// An operation that is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What it does.
    pub kind: Kind,
    /// The container, by its whole id.
    pub container: String,
    /// The idempotency key.
    pub key: Option<String>,
    /// Digest of what was asked and by whom.
    pub fingerprint: String,
    /// Who asks.
    pub caller: String,
}

/// What is kept of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) operation: Operation,
    /// Digest of what was asked and by whom: the same key with another request is a mistake.
    pub(super) fingerprint: String,
    /// Who asked.
    pub(super) caller: String,
    /// What it came to.
    pub(super) report: Option<Value>,
}

impl Record {
    pub(super) fn begin(asked: Asked) -> io::Result<Self> {
        Ok(Self {
            operation: Operation {
                id: new_id()?,
                kind: asked.kind,
                container: asked.container,
                key: asked.key,
                state: State::Running,
                phase: None,
                started_at: fastmig_engine::now(),
                ended_at: None,
                took_ms: 0,
                error: None,
                migration: None,
            },
            fingerprint: asked.fingerprint,
            caller: asked.caller,
            report: None,
        })
    }

    pub(super) fn conclude(&mut self, outcome: Result<Value, ErrorInfo>) {
        let operation = &mut self.operation;
        operation.ended_at = Some(fastmig_engine::now());
        operation.phase = None;
        operation.error = None;
        match outcome {
            Ok(report) => {
                operation.state = State::Done;
                self.report = Some(report);
            }
            Err(error) => {
                let cancelled = error.code == Code::Cancelled;
                operation.state = if cancelled { State::Cancelled } else { State::Failed };
                operation.error = Some(error);
            }
        }
    }

    /// The daemon died meanwhile.
    pub(super) fn interrupt(&mut self) {
        let text = "the daemon was stopped while this was done";
        let remedy =
            "what was half done has been undone; look at the container and ask again with another key";
        self.conclude(Err(ErrorInfo::new(Code::Internal, text).with_remedy(remedy)));
    }

    pub(super) fn is_over(&self) -> bool {
        self.operation.state != State::Running
    }
}

/// Sorts by age: milliseconds since 1970, then chance.
fn new_id() -> io::Result<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chance: [u8; 5] = crate::files::random()?;
    Ok(format!("{:012x}{}", since.as_millis(), hex::encode(chance)))
}

/// The directory that they are in, a file for each. Their names sort by age.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
}

impl Shelf {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        crate::files::make_private_dir(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub(super) fn store(&self, record: &Record) -> io::Result<()> {
        crate::files::replace_json(&self.path(&record.operation.id), record)
    }

    /// It is gone, or will be at the next start.
    pub(super) fn forget(&self, id: &str) {
        if let Err(e) = std::fs::remove_file(self.path(id)) {
            tracing::warn!(operation = id, error = %e, "an old operation cannot be forgotten");
        }
    }

    /// All, the oldest first. A damaged one, and what is too much, is removed.
    pub(super) fn load(&self) -> io::Result<Vec<Record>> {
        let mut names: Vec<String> = std::fs::read_dir(&self.directory)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        for old in names.drain(..names.len().saturating_sub(REMEMBERED)) {
            self.forget(&old);
        }
        Ok(names.iter().filter_map(|name| self.read(name)).collect())
    }

    fn read(&self, id: &str) -> Option<Record> {
        match crate::files::read_json::<Record>(&self.path(id)) {
            Ok(Some(record)) if record.operation.id == id => Some(record),
            Ok(_) => None,
            Err(e) => {
                tracing::warn!(operation = id, error = %e, "the record of an operation is damaged and forgotten");
                self.forget(id);
                None
            }
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}
