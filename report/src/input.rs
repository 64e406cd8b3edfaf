//! What is shown: one migration, or several, as the command line prints them.

use std::io::Read;

use fastmig_api::migration::Migrations;
use fastmig_api::MigrationReport;
use serde::Deserialize;

/// A day of migrations takes less.
const MOST: u64 = 64 << 20;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It could not be read.
    #[error("cannot read the input: {0}")]
    Read(#[from] std::io::Error),
    /// There is too much of it.
    #[error("the input is larger than {} MiB: choose fewer migrations with --limit", MOST >> 20)]
    TooLarge,
    /// It is something else.
    #[error("the input is not what `fastmig migrate --json` or `fastmig history --json` prints: {0}")]
    Strange(serde_json::Error),
    /// Nothing has been moved.
    #[error("there is no migration to show: nothing has moved yet, or none is called so")]
    Empty,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Several(Migrations),
    One(Box<MigrationReport>),
}

/// Migrations, the latest last; never none.
#[derive(Debug, Clone)]
pub struct Input(Vec<MigrationReport>);

impl Input {
    /// Reads one document.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or is something else.
    pub fn read(from: impl Read) -> Result<Self, InputError> {
        let mut text = Vec::new();
        from.take(MOST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MOST {
            return Err(InputError::TooLarge);
        }
        let migrations = match serde_json::from_slice(&text).map_err(InputError::Strange)? {
            Document::Several(several) => several.migrations,
            Document::One(one) => vec![*one],
        };
        if migrations.is_empty() {
            return Err(InputError::Empty);
        }
        Ok(Self(migrations))
    }

    /// Only the one whose id begins so.
    ///
    /// # Errors
    /// When there is none.
    pub fn only(mut self, id: &str) -> Result<Self, InputError> {
        self.0.retain(|report| report.id.starts_with(id));
        if self.0.is_empty() {
            return Err(InputError::Empty);
        }
        Ok(self)
    }

    pub(crate) fn migrations(&self) -> &[MigrationReport] {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{json, Value};

    use super::*;

    pub(crate) fn one() -> Value {
        let phase = |name, side, ms, frozen| json!({"phase": name, "side": side, "ms": ms, "frozen": frozen});
        json!({
            "id": "m-1", "side": "source", "container": "web<", "into": "web", "from": "host-a", "to": "host-b",
            "started_at": "2026-11-21T10:00:00Z", "total_ms": 1500, "frozen_ms": 87, "strategy": "pre-copy",
            "why": "asked for", "last_round_bytes": 4096, "predicted_freeze_ms": 62,
            "rounds": [
                {"round": 1, "bytes": 1 << 30, "scan_ms": 3, "ms": 900, "rate": 1 << 30, "predicted_freeze_ms": 400},
                {"round": 2, "bytes": 1 << 20, "scan_ms": 3, "ms": 20, "rate": 1 << 30, "dirty_rate": 1 << 20,
                    "predicted_freeze_ms": 62}
            ],
            "rounds_end": "converged", "iterations": 1, "streams": 4, "compression": "lz4",
            "chunks": {"none": 0, "lz4": 1000, "zstd": 24},
            "bytes": {"raw": 1 << 30, "memory": 1 << 30, "wire": 1 << 28, "zero": 1 << 20, "files": 2048},
            "files": 12,
            "resources": {"cpu_ms": 410, "memory_peak_bytes": 30 << 20, "read_bytes": 0, "written_bytes": 4096},
            "phases": [phase("prepare", "source", 31, false), phase("dump", "source", 30, true),
                phase("restore", "destination", 41, true)],
            "outcome": "moved"
        })
    }

    #[test]
    fn one_and_several_are_understood() {
        let read = |value: &Value| Input::read(value.to_string().as_bytes());
        assert_eq!(read(&one()).unwrap().migrations().len(), 1);
        let several = read(&json!({"migrations": [one(), one()]})).unwrap();
        assert_eq!(several.migrations().len(), 2);
        assert!(several.clone().only("m-").is_ok());
        assert!(matches!(several.only("x"), Err(InputError::Empty)));
    }

    #[test]
    fn what_is_something_else_is_refused() {
        assert!(matches!(Input::read(&b"{\"a\": 1}"[..]), Err(InputError::Strange(_))));
        assert!(matches!(Input::read(&b"{\"migrations\": []}"[..]), Err(InputError::Empty)));
        assert!(matches!(Input::read(std::io::repeat(b' ')), Err(InputError::TooLarge)));
    }
}
