//! A migration: its report, which is the same while it runs, at its end and in the history.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::request::{Compression, Strategy};
use crate::resources::Resources;

/// The end of a migration that somebody is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The application leaves.
    Source,
    /// It arrives.
    Destination,
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is not over.
    Running,
    /// The application lives at the destination.
    Moved,
    /// The application lives on at the source, as if nothing had been.
    Stayed,
    /// Both ends were asked, and it could be done; nothing was (`dry_run`).
    Possible,
    /// The application is at the source, stopped: it could not be made to run on, which is tried again at the daemon's
    /// start.
    Stopped,
    /// The source waits, stopped, to hear from the destination what was decided.
    Undecided,
    /// It had moved, and was killed there: the memory that was to follow it did not come.
    Lost,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Moved => "moved",
            Self::Stayed => "stayed",
            Self::Possible => "possible",
            Self::Stopped => "stopped",
            Self::Undecided => "undecided",
            Self::Lost => "lost",
        })
    }
}

/// How long a phase took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseTime {
    /// `connect`, `prepare`, `files`, `ready`, `rounds`, `freeze`, `last-round`, `dump`, `restore`, `verify`, `commit`, `release`,
    /// `end`, and others.
    pub phase: String,
    /// Who measured it.
    pub side: Side,
    /// In milliseconds.
    pub ms: u64,
    /// Whether the application was frozen during it.
    pub frozen: bool,
}

/// How much travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Bytes {
    /// The application's images, memory included, as they are.
    pub raw: u64,
    /// Of them, memory.
    pub memory: u64,
    /// Of them, pages that hold nothing but zeros, and were not sent.
    pub zero: u64,
    /// File content.
    pub files: u64,
    /// All that was sent: images, files and messages.
    pub wire: u64,
}

/// How many pieces of memory were compressed how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Chunks {
    /// Not at all.
    pub none: u64,
    /// By LZ4.
    pub lz4: u64,
    /// By Zstandard.
    pub zstd: u64,
}

/// A round of memory that travelled while the application ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Round {
    /// Which, from 1.
    pub round: u32,
    /// Bytes that travelled in it.
    pub bytes: u64,
    /// How long looking for them took, in milliseconds.
    pub scan_ms: u64,
    /// All of it, in milliseconds.
    pub ms: u64,
    /// Bytes per second that the link carries.
    pub rate: u64,
    /// Bytes per second that the application writes, page by page; nothing after the first round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_rate: Option<u64>,
    /// How long it would stand still if it were frozen after this round, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_freeze_ms: Option<u64>,
}

/// How a migration would have gone by one strategy, with what was measured of memory and link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// How memory would have travelled.
    pub strategy: Strategy,
    /// How long the application would have stood still, in milliseconds.
    pub freeze_ms: u64,
    /// Until all of its memory would have been there, in milliseconds.
    pub total_ms: u64,
}

/// Why rounds of memory came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoundsEnd {
    /// The rest was small enough.
    Converged,
    /// There were as many as there may be, or they took as long as they may.
    Forced,
    /// What was left was to follow it.
    Owed,
}

/// A migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MigrationReport {
    /// The same on both hosts.
    pub id: String,
    /// Whose report this is.
    pub side: Side,
    /// The container that the application left.
    pub container: String,
    /// The container that it went into.
    pub into: String,
    /// The host that it left.
    pub from: String,
    /// The host that it went to.
    pub to: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// All of it, in milliseconds.
    pub total_ms: u64,
    /// From the freeze to the word that it runs at the destination (or again at the source), in milliseconds: the gap.
    /// Nothing when it was never frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_ms: Option<u64>,
    /// How its memory travelled; `auto` as long as that is not chosen.
    pub strategy: Strategy,
    /// Why so; the source knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Rounds of its memory while it ran, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Round>,
    /// Why they came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds_end: Option<RoundsEnd>,
    /// How much of the processor was taken from it in the end, in percent.
    #[serde(default)]
    pub throttled: u32,
    /// What each strategy would have cost, where there were rounds to tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forecasts: Vec<Forecast>,
    /// Memory that it wrote since the last round, and that travelled while it was frozen, in bytes.
    #[serde(default)]
    pub last_round_bytes: u64,
    /// Memory that followed while it ran at the destination, in bytes.
    #[serde(default)]
    pub owed_bytes: u64,
    /// How often it waited there for some of that.
    #[serde(default)]
    pub owed_faults: u64,
    /// From its release there until all of that had come, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_ms: Option<u64>,
    /// How long it was predicted to be frozen, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_freeze_ms: Option<u64>,
    /// How many pages of its memory were compared before it ran again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_pages: Option<u64>,
    /// Rounds of files, with that in the freeze.
    pub iterations: u32,
    /// In how many streams.
    pub streams: u32,
    /// How most of it was compressed in the end.
    pub compression: Compression,
    /// How much of it how.
    pub chunks: Chunks,
    /// How much.
    pub bytes: Bytes,
    /// Files, directories, links and deletions.
    pub files: u64,
    /// What it took of the host whose report this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Each phase, in order.
    pub phases: Vec<PhaseTime>,
    /// What went wrong without changing how it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Mappings whose memory CRIU has dumped while the application stood still, for that in rounds was in doubt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_to_criu: Vec<LeftMapping>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why the application did not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A mapping whose memory did not travel in rounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftMapping {
    /// The process, as its container numbers it.
    pub process: i32,
    /// Its first address, in hexadecimal digits.
    pub start: String,
    /// The first address after it.
    pub end: String,
    /// Why.
    pub why: String,
}

/// `GET /v1/migrations`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Migrations {
    /// The latest last.
    pub migrations: Vec<MigrationReport>,
}
