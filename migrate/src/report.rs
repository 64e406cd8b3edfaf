//! What became of a migration, for people and programs.

use serde::{Deserialize, Serialize};

use crate::id::MigrationId;
use crate::options::{Compression, Strategy};
use crate::phase::Phase;

/// Where the application lives now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// On the destination.
    Moved,
    /// On the source, as if nothing had been tried.
    Stayed,
    /// On the source, stopped: it could not be made to run on, which is tried again at the daemon's start.
    Stopped,
    /// The destination has decided, or will, and could not be asked yet. The source stays stopped, and goes on asking at the
    /// daemon's next start.
    Undecided,
}

/// How long a phase took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// Which.
    pub phase: Phase,
    /// How long.
    pub milliseconds: u64,
}

/// How much travelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Images, as the application has them.
    pub raw: u64,
    /// Of them, pages of zeros, which did not travel.
    pub zero: u64,
    /// Of them, memory.
    pub memory: u64,
    /// All that was sent on all connections, before encryption: images, files and messages.
    pub wire: u64,
    /// The content of files.
    pub files: u64,
}

/// What one host knows of a migration that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub id: MigrationId,
    /// The container, by the name that it was asked for.
    pub container: String,
    /// The other host.
    pub peer: String,
    /// Where the application lives now.
    pub outcome: Outcome,
    /// Why it did not move.
    pub reason: Option<String>,
    /// What went wrong without changing the outcome.
    pub warnings: Vec<String>,
    /// How memory travelled.
    pub strategy: Strategy,
    /// How it was compressed, as it was asked for.
    pub compression: Compression,
    /// Chunks by how they were compressed in the end: none, lz4, zstd.
    pub chunks: [u64; 3],
    /// Connections that carried memory.
    pub streams: u32,
    /// Rounds of files, with the one in the freeze.
    pub file_rounds: u32,
    /// Files, directories, links and deletions that travelled.
    pub files: u64,
    /// How much travelled.
    pub bytes: Bytes,
    /// The source's phases, in order.
    pub source: Vec<Took>,
    /// The destination's phases, in order.
    pub destination: Vec<Took>,
    /// From before the freeze to the answer to the commit, which is sent when the application runs again. By the source's
    /// clock alone. Also given when it stayed: how long it stood still.
    pub frozen_ms: Option<u64>,
    /// The whole migration.
    pub total_ms: u64,
}
