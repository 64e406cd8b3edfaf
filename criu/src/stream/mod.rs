//! CRIU in its stream mode: images go through sockets and pipes, never through files, and the memory of processes does not
//! travel through CRIU at all at a dump.
//!
//! Stream mode exists on CRIU's command line alone (its RPC service ends in a BUG there, 4.2), so that what the RPC would
//! announce comes by a program that CRIU calls at each stage (`--action-script`): the init, under another name.
//!
//! | file | what it does |
//! |---|---|
//! | `directory` | the sockets that one CRIU finds in its image directory |
//! | `command` | options as a command line |
//! | [`session`] | the CRIU process: what it announces, its limit, its end |
//! | `request` | what CRIU's streamer client asks for (`img-streamer.proto`) |
//! | `capture` | a dump's images, as they are written |
//! | `pagemap` | which addresses an image of pages holds |
//! | [`memory`] | pages, read from the stopped processes instead |
//! | `serve` | a restore's images, as they are asked for |
//!
//! At a dump CRIU splices the pages of processes into a pipe, by reference; they are thrown away there, which copies
//! nothing, and [`memory::ProcessMemory`] reads them where they are, in any order and as often as it takes. So the
//! descriptions of all processes, which a restore needs first and CRIU writes last, need not wait behind the pages.

mod capture;
mod command;
mod directory;
pub mod memory;
mod pagemap;
mod request;
mod serve;
pub mod session;

use std::fmt::Debug;
use std::io::{self, Read};

pub(crate) use directory::{Directory, Purpose};
pub use memory::ProcessMemory;
pub(crate) use pagemap::parse as parse_page_map;
pub use pagemap::{PageImage, Range};
pub use session::{StreamedDump, StreamedRestore};

/// Where a dump puts its images, in the order in which CRIU ends them.
pub trait ImageSink: Send {
    /// One whole image.
    ///
    /// # Errors
    /// When it cannot be taken: the dump fails.
    fn image(&mut self, name: &str, content: Vec<u8>) -> io::Result<()>;

    /// The next part of a large image; `last` ones may be empty.
    ///
    /// # Errors
    /// When it cannot be taken: the dump fails.
    fn part(&mut self, name: &str, content: Vec<u8>, last: bool) -> io::Result<()>;
}

/// Where a restore takes its images from.
pub trait ImageSource: Send + Sync + Debug {
    /// Opens one; nothing when there is none of that name.
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>>;

    /// The names of those that are there whole.
    fn names(&self) -> Vec<String>;
}
