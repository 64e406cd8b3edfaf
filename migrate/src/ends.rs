//! The two ends of a migration, as the protocol sees them. The daemon implements them by the engine; tests by programs of
//! their own. All calls block.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fetch::Errand;
use crate::options::Strategy;

/// Why an end could not do what it was asked; its text names cause and remedy.
pub type EndError = Box<dyn std::error::Error + Send + Sync>;

/// What an end answers when memory that travelled in rounds is not what the dump or the restore has left out, or cannot be told.
/// Nothing is lost: the application runs on, and can move while it stands still.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Doubt {
    /// What is not as it should be.
    pub reason: String,
    /// The mappings that it is about; none where that cannot be said.
    pub mappings: Vec<InDoubt>,
}

/// A mapping whose memory is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InDoubt {
    /// The process, as its container numbers it.
    pub process: i32,
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
}

/// How much of the files was packed or put back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    /// Files, directories, links and deletions.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// How memory is going to travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Never [`Strategy::Auto`].
    pub strategy: Strategy,
    /// Why that one, for people.
    pub why: String,
}

/// What becomes of a round's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It travels now.
    Send,
    /// It is owed: it travels when the application runs at the destination.
    Owe,
}

/// A round of memory: what the application has written since the last one, or, in the first, all of it.
#[derive(Debug)]
pub struct Round {
    /// What [`Waiting::round`] is told of it: where it belongs.
    pub plan: Vec<u8>,
    /// Its content. Several images can be read at the same time.
    pub memory: Arc<dyn Memory>,
    /// Of the last round: what is owed, in one image.
    pub owed: Option<Arc<dyn Memory>>,
    /// How long looking for it took; the application ran, but for moments.
    pub scan: Duration,
    /// All memory that travels in rounds, in bytes: what the freeze has to look through.
    pub tracked: u64,
    /// Processes of the application.
    pub processes: u32,
}

/// A running application that is to leave its container. Dropped undecided, it runs on.
///
/// ```text
///   Running --ready--> Running --freeze--> Frozen --dump--> Dumped --fence--> Fenced --end--> (standby)
///                       round                round
///      ^                                      |                |                 |
///      +------------------ resume ------------+----------------+-----------------+
/// ```
pub trait Leaving: Send + Debug {
    /// What the destination must know of it before anything stops.
    ///
    /// # Errors
    /// When it cannot leave: why, and what would make it possible.
    fn passport(&mut self) -> Result<Value, EndError>;

    /// Packs what has changed in its files since the last call: once or more while it runs, and once frozen.
    ///
    /// # Errors
    /// When a file cannot be read or `out` not be written.
    fn pack_files(&mut self, out: &mut dyn Write) -> Result<Files, EndError>;

    /// Which strategy serves, of what was asked for and this host can do.
    ///
    /// # Errors
    /// When what was asked for cannot be done: why.
    fn choose(&mut self, asked: Strategy) -> Result<Choice, EndError>;

    /// Starts all that the dump needs, so that it costs the application nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    fn ready(&mut self, strategy: Strategy) -> Result<(), EndError>;

    /// The next round of memory, while it runs; once frozen, the last one, after which nothing is missing but what the dump
    /// itself describes.
    ///
    /// # Errors
    /// When its memory cannot be tracked.
    fn round(&mut self, pass: Pass) -> Result<Round, EndError>;

    /// Takes so much of its processor time away, in percent, until it has left or runs on.
    ///
    /// # Errors
    /// When the host cannot do that.
    fn throttle(&mut self, percent: u32) -> Result<(), EndError>;

    /// Stops it. Should our process die from here to [`Leaving::fence`], it runs on by itself.
    ///
    /// # Errors
    /// When it does not stop in time; it runs then.
    fn freeze(&mut self) -> Result<(), EndError>;

    /// Dumps it into `images`. Memory is not among them: it stays where it is, for [`Memory`] to be read from.
    /// Returns what the destination must know in addition, now that it stands still.
    ///
    /// # Errors
    /// When it cannot be dumped.
    fn dump(&mut self, images: &mut dyn Images) -> Result<Value, EndError>;

    /// What identifies the content of all its memory, once dumped, for [`Waiting::compare`].
    ///
    /// # Errors
    /// When it cannot be read.
    fn fingerprint(&mut self) -> Result<Vec<u8>, EndError>;

    /// Its memory, once dumped, but for what travelled in rounds.
    ///
    /// # Errors
    /// When it is not dumped, or its processes are gone.
    fn memory(&self) -> Result<Arc<dyn Memory>, EndError>;

    /// What it owes, when it was fenced by a process that has died since: as it was in [`Round::owed`].
    ///
    /// # Errors
    /// When it is not there any more, or was not found so.
    fn owed(&self) -> Result<Arc<dyn Memory>, EndError>;

    /// From here on the death of our process leaves it stopped: the journal decides what becomes of it.
    ///
    /// # Errors
    /// When that cannot be made sure.
    fn fence(&mut self) -> Result<(), EndError>;

    /// It runs on, whatever had been done.
    ///
    /// # Errors
    /// When it cannot be thawed.
    fn resume(self: Box<Self>) -> Result<(), EndError>;

    /// It is decided that it lives at the destination: whoever talks to what has stayed here hears so now, though that may
    /// be needed for a while, and takes its time to end. Where it cannot be done, they hear at the end.
    fn hang_up(&mut self) {}

    /// It never runs again; its container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed: it stays stopped then.
    fn end(self: Box<Self>) -> Result<(), EndError>;
}

/// Where a dump puts its images, in the order of their making. An image is closed before the next call returns for it.
pub trait Images: Send {
    /// One whole image. Small: process descriptions, lists of files.
    ///
    /// # Errors
    /// When it cannot be passed on; the dump fails then.
    fn image(&mut self, name: &str, content: Vec<u8>) -> io::Result<()>;

    /// The next part of an image that may be large: shared memory, deleted files. `last` parts may be empty.
    ///
    /// # Errors
    /// When it cannot be passed on; the dump fails then.
    fn part(&mut self, name: &str, content: Vec<u8>, last: bool) -> io::Result<()>;
}

/// Memory by names of images, readable anywhere, by several threads: what the dump of a stopped application left out, or what
/// travels in a round.
pub trait Memory: Send + Sync + Debug {
    /// Names and sizes.
    fn images(&self) -> Vec<(String, u64)>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// When there is no such image, the range leaves it, or the process is gone.
    fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A container in standby that is to take the application in. Dropped undecided, it is in standby again.
///
/// ```text
///   Standby --ready--> Standby --restore--> Held --release--> (running, or Owing)
///      ^                  |                  |
///      +----- abandon ----+------------------+
/// ```
pub trait Waiting: Send + Debug {
    /// Whether what `passport` describes can live here.
    ///
    /// # Errors
    /// Why not, all reasons at once, and what would make it possible.
    fn check(&mut self, passport: &Value) -> Result<(), EndError>;

    /// Puts files back.
    ///
    /// # Errors
    /// When the archive is damaged or a file cannot be written.
    fn unpack_files(&mut self, archive: &mut dyn Read) -> Result<Files, EndError>;

    /// Starts all that the restore needs; it waits for images then.
    ///
    /// # Errors
    /// When it cannot be started.
    fn ready(&mut self, strategy: Strategy) -> Result<(), EndError>;

    /// Gets ready for a round of memory; `plan` is the [`Round::plan`] of the source. Where its content goes.
    ///
    /// # Errors
    /// When the plan is damaged, or there is no room for it.
    fn round(&mut self, plan: &[u8]) -> Result<Arc<dyn Place>, EndError>;

    /// All content of a round is in its place, and the application still runs: time for what makes the restore shorter.
    ///
    /// # Errors
    /// When what was filled is gone.
    fn round_is_there(&mut self) -> Result<(), EndError>;

    /// Whether what was started still waits. Asked now and then while nothing comes.
    ///
    /// # Errors
    /// When it was killed: nothing can be restored any more, and the source is told before its application stops.
    fn still_waits(&mut self) -> Result<(), EndError>;

    /// What of the last round is owed is to be fetched by `errand`, by somebody who outlives us: see [`crate::fetch`].
    ///
    /// # Errors
    /// When there is nobody who could, or the source cannot be reached from here.
    fn owed(&mut self, errand: &Errand) -> Result<(), EndError> {
        let _ = errand;
        Err("nobody here fetches what follows".into())
    }

    /// Restores from `images`; `dumped` is what [`Leaving::dump`] returned. The application is whole then, and stopped; should
    /// our process die it stays so, and the journal decides what becomes of it.
    ///
    /// # Errors
    /// When it cannot be restored: the container is in standby then.
    fn restore(&mut self, dumped: &Value, images: Arc<dyn ImageSource>) -> Result<(), EndError>;

    /// Compares all memory of what was restored with a [`Leaving::fingerprint`]. How many pages were compared.
    ///
    /// # Errors
    /// When they differ: which.
    fn compare(&mut self, fingerprint: &[u8]) -> Result<u64, EndError>;

    /// Whether what was restored is still whole, and stopped. Asked right before it is decided that it lives here: somebody
    /// may have killed it since, or the container with it.
    ///
    /// # Errors
    /// When it is not: it is abandoned then, and lives on at the source.
    fn verify(&mut self) -> Result<(), EndError>;

    /// It runs. What is returned is there when memory is owed to it.
    ///
    /// # Errors
    /// When it cannot be thawed: it stays stopped then.
    fn release(self: Box<Self>) -> Result<Option<Box<dyn Owing>>, EndError>;

    /// It is decided that it runs here, and memory is owed to it; the daemon that began that has died. It runs from here on, and
    /// whoever fetches is found again.
    ///
    /// # Errors
    /// When it cannot be thawed, or is gone.
    fn follow(self: Box<Self>) -> Result<Box<dyn Owing>, EndError> {
        Err("nobody here fetches what follows".into())
    }

    /// It ran, and cannot run on without the memory that it is owed: it is killed, and the container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed.
    fn lose(self: Box<Self>, reason: &str) -> Result<(), EndError>;

    /// It never runs; the container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed: it stays stopped then.
    fn abandon(self: Box<Self>) -> Result<(), EndError>;
}

/// An application that runs while memory is owed to it.
pub trait Owing: Send + Debug {
    /// Waits for the end, for so long. Whether all is there.
    ///
    /// # Errors
    /// When it will never be.
    fn wait(&self, patience: Duration) -> Result<bool, String>;

    /// Bytes that were put in their places so far, and how often the application had to wait for some of them.
    fn told(&self) -> (u64, u64);

    /// All is there: nothing of how it came stays behind.
    ///
    /// # Errors
    /// When the host cannot forget it.
    fn settle(self: Box<Self>) -> Result<(), EndError>;

    /// It cannot run on: it is killed, and the container is in standby.
    ///
    /// # Errors
    /// When it cannot be killed.
    fn lose(self: Box<Self>, reason: &str) -> Result<(), EndError>;
}

/// Where the content of a round goes.
pub trait Place: Send + Sync + Debug {
    /// Puts `content` where the plan says that `offset` of `image` belongs. Called by several threads.
    ///
    /// # Errors
    /// When there is no such place, or no room.
    fn write(&self, image: &str, offset: u64, content: &[u8]) -> io::Result<()>;
}

/// Where a restore takes images from. [`Waiting::restore`] is called when all small ones are there; memory, and what else is
/// large, may still be on its way.
pub trait ImageSource: Send + Sync + Debug {
    /// Opens one; nothing when there is none of that name. It is read once, from the beginning, and forgotten.
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>>;

    /// The names of those that are there whole.
    fn names(&self) -> Vec<String>;
}
