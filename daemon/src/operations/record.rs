//! One operation on disk.

use std::io;
use std::path::{Path, PathBuf};

use fastmig_api::operation::State;
use fastmig_api::Operation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// So many operations that have ended are remembered; the oldest go. A key is known as long as its operation.
pub(super) const REMEMBERED: usize = 1000;

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
    pub(super) fn is_over(&self) -> bool {
        self.operation.state != State::Running
    }
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
