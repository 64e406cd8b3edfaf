//! What is asked for, what can be chosen of a migration, and how long its phases may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a source asks a destination for. It comes from another host: only authenticated, not trusted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The container that is to take the application in, by id or name; the one that is made, by name.
    pub container: String,
    /// The recipe by which it is to be made; nothing when it is there already.
    pub create: Option<Value>,
    /// What else both daemons agree on.
    pub options: Value,
}

/// How memory travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Strategy {
    /// In rounds where the host can track what an application writes, and else while it stands still.
    #[default]
    Auto,
    /// The application stands still while all of its memory travels.
    StopCopy,
    /// Memory travels in rounds while the application runs; what it wrote since the last one travels while it stands still.
    PreCopy,
    /// It moves first; its memory follows while it runs at the destination, what it touches first of all. Should the source be
    /// lost meanwhile, the application is lost.
    PostCopy,
    /// Rounds as in `PreCopy`; what is left then follows as in `PostCopy`.
    Hybrid,
}

impl Strategy {
    /// Whether memory is tracked, and told of in rounds.
    #[must_use]
    pub const fn has_rounds(self) -> bool {
        matches!(self, Self::PreCopy | Self::PostCopy | Self::Hybrid)
    }
}

/// What is done when rounds of memory do not come to an end: the application writes faster than the link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// It is stopped all the same, for as long as the rest takes.
    #[default]
    Force,
    /// The migration is given up.
    Abort,
    /// It gets less and less of the processor until the rest is small enough.
    Throttle,
    /// It moves, and the rest follows while it runs at the destination.
    PostCopy,
}

impl OnTimeout {
    /// Its name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::Abort => "abort",
            Self::Throttle => "throttle",
            Self::PostCopy => "post-copy",
        }
    }
}

/// When memory has travelled long enough while the application ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// It is stopped when it is predicted to stand still for no longer than this.
    pub max_downtime: Duration,
    /// The most rounds.
    pub most: u32,
    /// The most time that they may take together.
    pub timeout: Duration,
    /// What is done then.
    pub on_timeout: OnTimeout,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            max_downtime: Duration::from_millis(100),
            most: 30,
            timeout: Duration::from_secs(600),
            on_timeout: OnTimeout::default(),
        }
    }
}

/// How images are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// What the measured rates of link and compression make fastest, chunk by chunk.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// LZ4: several hundred MB/s for each core, about half the size.
    Lz4,
    /// Zstandard, level 1: slower and smaller.
    Zstd,
}

/// How long each phase may take, on either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Each connection: dial, handshake, first answer.
    pub connect: Duration,
    /// The image's content.
    pub image: Duration,
    /// The checks of both ends, and the making of the container.
    pub prepare: Duration,
    /// All rounds of files while the application runs.
    pub files: Duration,
    /// The start of dump and restore.
    pub ready: Duration,
    /// From the freeze to the decision. The source runs on when it is over, whatever the destination does.
    pub frozen: Duration,
    /// The answer to the source's commit; then it asks over new connections.
    pub commit: Duration,
    /// How long the destination keeps the restored application for the commit.
    pub held: Duration,
    /// The last messages, after all is decided.
    pub finish: Duration,
    /// A destination that works says so a few times a second; one that says nothing for this long is given up.
    pub silence: Duration,
    /// The longest pause between two questions for the destination's decision.
    pub ask_again: Duration,
    /// How long the destination is asked; nothing: until it answers.
    pub ask: Option<Duration>,
    /// How long the application waits, at the destination, for memory that it is owed, while the source cannot be reached. Then it
    /// is killed, for it cannot run without.
    pub apart: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            image: Duration::from_secs(3600),
            prepare: Duration::from_secs(120),
            files: Duration::from_secs(3600),
            ready: Duration::from_secs(30),
            frozen: Duration::from_secs(60),
            commit: Duration::from_secs(10),
            held: Duration::from_secs(90),
            finish: Duration::from_secs(60),
            silence: Duration::from_secs(10),
            ask_again: Duration::from_secs(15),
            ask: None,
            apart: Duration::from_secs(600),
        }
    }
}

/// What both ends may keep in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Memory that the destination has asked for or received and that the restore has not taken yet, in bytes.
    pub window: u64,
    /// All small images together.
    pub small: u64,
    /// All large images that are pushed (shared memory, deleted files) together.
    pub large: u64,
    /// Data connections of one migration.
    pub streams: u32,
    /// Migrations that arrive at the same time.
    pub arrivals: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { window: 128 << 20, small: 256 << 20, large: 8 << 30, streams: 16, arrivals: 16 }
    }
}

/// The options of one migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How memory travels.
    pub strategy: Strategy,
    /// When its rounds have come to an end.
    pub rounds: Rounds,
    /// Each page of memory is compared before the application runs again.
    pub verify: bool,
    /// How it is compressed.
    pub compression: Compression,
    /// How many connections carry memory; at least one.
    pub streams: u32,
    /// The most rounds of files while the application runs; 0 when no files are to travel.
    pub file_rounds: u32,
    /// A round with fewer bytes than this is the last before the freeze.
    pub small_round: u64,
    /// Time limits.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            rounds: Rounds::default(),
            verify: false,
            compression: Compression::default(),
            streams: 4,
            file_rounds: 3,
            small_round: 1 << 20,
            limits: Limits::default(),
        }
    }
}
