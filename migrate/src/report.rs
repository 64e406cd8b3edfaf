//! What became of a migration, for people and programs.

use serde::{Deserialize, Serialize};

use crate::ends::InDoubt;
use crate::id::MigrationId;
use crate::journal::Record;
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
    /// Nowhere: it had moved, and the memory that it was owed did not come any more.
    Lost,
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

/// A round of memory that travelled while the application ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Which, from 1.
    pub round: u32,
    /// Bytes that travelled in it.
    pub bytes: u64,
    /// How long looking for them took, of the time below.
    pub scan_ms: u64,
    /// From its begin to its end.
    pub milliseconds: u64,
    /// Bytes per second that travelled.
    pub rate: u64,
    /// Bytes per second that the application writes, page by page; nothing after the first round.
    pub dirty_rate: Option<u64>,
    /// How long the application would stand still if it were stopped now; nothing after the first round.
    pub predicted_freeze_ms: Option<u64>,
}

/// How a migration would have gone by one strategy, with what was measured of memory and link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// How memory would have travelled.
    pub strategy: Strategy,
    /// How long the application would have stood still.
    pub freeze_ms: u64,
    /// Until all of its memory would have been there.
    pub total_ms: u64,
}

/// Why rounds came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundsEnd {
    /// The rest is small enough.
    Converged,
    /// There were as many as there may be, or they took as long as they may, and it was asked to stop the application then.
    Forced,
    /// What was left is owed to it.
    Owed,
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
    /// It did not move because of a doubt about memory that travelled in rounds: about these mappings, or, where there are none,
    /// about all of it. A move without rounds does not have it.
    #[serde(default, rename = "in_doubt")]
    pub doubt: Option<Vec<InDoubt>>,
    /// What went wrong without changing the outcome.
    pub warnings: Vec<String>,
    /// How memory travelled.
    pub strategy: Strategy,
    /// Why so.
    pub why: String,
    /// Rounds of memory while the application ran.
    pub rounds: Vec<Round>,
    /// Why they came to an end, if there were some.
    pub rounds_end: Option<RoundsEnd>,
    /// How much of the processor was taken from the application in the end, in percent.
    pub throttled: u32,
    /// What each strategy would have cost, where there were rounds to tell.
    #[serde(default)]
    pub forecasts: Vec<Forecast>,
    /// Bytes of the last round, while it stood still.
    pub last_round: u64,
    /// Bytes that followed while it ran at the destination.
    #[serde(default)]
    pub owed: u64,
    /// How often it waited for some of them.
    #[serde(default)]
    pub faults: u64,
    /// From its release until all of them were there, by the destination's clock.
    #[serde(default)]
    pub filled_ms: Option<u64>,
    /// How long it was predicted to stand still.
    pub predicted_freeze_ms: Option<u64>,
    /// How many pages were compared, if that was asked for.
    pub verified_pages: Option<u64>,
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

impl Report {
    /// What both hosts know of any.
    pub(crate) fn bare(
        id: MigrationId,
        container: String,
        peer: String,
        outcome: Outcome,
        reason: Option<String>,
    ) -> Self {
        Self {
            id,
            container,
            peer,
            outcome,
            reason,
            doubt: None,
            warnings: Vec::new(),
            strategy: Strategy::default(),
            why: String::new(),
            rounds: Vec::new(),
            rounds_end: None,
            throttled: 0,
            forecasts: Vec::new(),
            last_round: 0,
            owed: 0,
            faults: 0,
            filled_ms: None,
            predicted_freeze_ms: None,
            verified_pages: None,
            compression: Compression::default(),
            chunks: [0; 3],
            streams: 0,
            file_rounds: 0,
            files: 0,
            bytes: Bytes::default(),
            source: Vec::new(),
            destination: Vec::new(),
            frozen_ms: None,
            total_ms: 0,
        }
    }

    /// Of an application that ran here before its memory was, as far as the daemon knows it that has come after the one which
    /// let it run: `told` is bytes and faults.
    pub(crate) fn followed(
        record: &Record,
        outcome: Outcome,
        reason: Option<String>,
        told: (u64, u64),
        milliseconds: u64,
        warnings: Vec<String>,
        destination: Vec<Took>,
    ) -> Self {
        let (container, peer) = (record.container.clone(), record.peer.clone());
        Self {
            warnings,
            owed: told.0,
            faults: told.1,
            filled_ms: Some(milliseconds),
            destination,
            total_ms: milliseconds,
            ..Self::bare(record.id, container, peer, outcome, reason)
        }
    }
}
