//! What a migration does, in order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A step of a migration, on the source, the destination or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The source connects, and both agree on a protocol.
    Connect,
    /// The content of the container's image travels, when the destination lacks it.
    Image,
    /// Both ends are checked; the destination finds or makes the container.
    Prepare,
    /// Files travel while the application runs.
    Files,
    /// Dump and restore are started, and wait.
    Ready,
    /// Memory travels while the application runs.
    Rounds,
    /// The operator's commands on the source, before it stops.
    PreCheckpoint,
    /// It stops.
    Freeze,
    /// The files that changed meanwhile travel.
    LastFiles,
    /// What it wrote since the last round is looked for, and begins to travel.
    LastRound,
    /// It is dumped; small images travel.
    Dump,
    /// The operator's commands on the source, now that it stands still.
    PostCheckpoint,
    /// The operator's commands on the destination.
    PreRestore,
    /// It is restored while its memory travels.
    Restore,
    /// All its memory is compared.
    Verify,
    /// It is decided that it lives on the destination.
    Commit,
    /// It runs on the destination.
    Release,
    /// The source has what it owes until all of it has been fetched.
    Serve,
    /// The destination fetches what the application is owed, which runs.
    Fill,
    /// It is killed on the source.
    End,
    /// The operator's commands on the destination, now that it runs.
    PostRestore,
    /// The destination sends its part of the report; both close their records.
    Finish,
}

impl Phase {
    /// Its name, as in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Image => "image",
            Self::Prepare => "prepare",
            Self::Files => "files",
            Self::Ready => "ready",
            Self::Rounds => "rounds",
            Self::PreCheckpoint => "pre-checkpoint",
            Self::Freeze => "freeze",
            Self::LastFiles => "last-files",
            Self::LastRound => "last-round",
            Self::Dump => "dump",
            Self::PostCheckpoint => "post-checkpoint",
            Self::PreRestore => "pre-restore",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Commit => "commit",
            Self::Release => "release",
            Self::Serve => "serve",
            Self::Fill => "fill",
            Self::End => "end",
            Self::PostRestore => "post-restore",
            Self::Finish => "finish",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
