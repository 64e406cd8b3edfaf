//! Memory that comes after its processes: what they miss is fetched when they touch it, and the rest is filled in behind.
//!
//! | file | what it does |
//! |---|---|
//! | `space` | one address space: what it misses, and what it does to that meanwhile |
//! | `missing` | the rules for that, without a kernel |
//! | `message`, `order` | what a userfaultfd says, and in which order it happened |
//! | `work` | the threads: one hears, some answer faults, some fill |
//!
//! Known here are userfaultfds, addresses, and somebody who has the content.

mod message;
mod missing;
mod order;
mod space;
mod work;

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Span;
use space::Space;
use work::Shared;

/// Who has the content of missing pages.
pub trait Origin: Send + Sync + Debug {
    /// Fills `into` with what process `process` had from `address` on: whole pages of one span that was said to be missing.
    /// Blocks for as long as there is hope; `urgent` when somebody stands still for it.
    ///
    /// # Errors
    /// When the content will not come any more.
    fn fetch(&self, process: i32, address: u64, into: &mut [u8], urgent: bool) -> io::Result<()>;
}

/// What a process misses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The process.
    pub process: i32,
    /// Whose memory has the content, at the same addresses: its own, or that of the one that it inherited from.
    pub of: i32,
    /// Where.
    pub spans: Vec<Span>,
}

/// How it went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Bytes that were put in their places.
    pub bytes: u64,
    /// Faults that were answered with content.
    pub faults: u64,
    /// Faults where nothing was missing, answered with zeros.
    pub zeros: u64,
}

/// Fills memory. Dropped before all is there, what is missing reads as zeros: the processes must be gone by then.
#[derive(Debug)]
pub struct Fill {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    begun: bool,
}

/// Threads that answer faults, and that fill.
const ANSWERING: usize = 4;
const FILLING: usize = 3;

impl Fill {
    /// Answers faults from now on, of processes that are [added](Self::add).
    ///
    /// # Errors
    /// When there are no threads or descriptors to be had.
    pub fn new(origin: Arc<dyn Origin>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(origin)?);
        let mut fill = Self { shared, threads: Vec::new(), begun: false };
        fill.start("fill-hear", Shared::hear)?;
        for _ in 0..ANSWERING {
            fill.start("fill-answer", Shared::answer)?;
        }
        Ok(fill)
    }

    fn start(&mut self, name: &str, work: fn(&Shared)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(name.into());
        self.threads.push(thread.spawn(move || work(&shared))?);
        Ok(())
    }

    /// A process with its userfaultfd, which does not block, and what it misses.
    ///
    /// # Errors
    /// When the descriptor cannot be copied.
    pub fn add(&self, process: i32, uffd: OwnedFd, missing: &[Missing]) -> io::Result<()> {
        let ours = missing.iter().filter(|missing| missing.process == process);
        let spans = ours.flat_map(|missing| missing.spans.iter().map(|span| (*span, missing.of)));
        self.shared.add(Space::new(process, uffd, spans))
    }

    /// Copies of the userfaultfds: whoever has them keeps faults waiting when we die.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.shared.spaces().iter().map(|space| space.descriptor()).collect()
    }

    /// Lets go of the mappings (start, end) of a process in which nothing is missing. While it stands still.
    pub fn let_go(&self, process: i32, mappings: &[Span]) {
        for space in self.shared.spaces().iter().filter(|space| space.process() == process) {
            space.let_go(mappings);
        }
    }

    /// What a process, with this pid on the host, is said to miss and has: something else than it should. While it stands
    /// still, and before [`Fill::begin`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn untimely(&self, process: i32, host: i32) -> io::Result<Vec<Span>> {
        let spaces = self.shared.spaces();
        let found =
            spaces.iter().filter(|space| space.process() == process).map(|space| space.untimely(host));
        Ok(found.collect::<io::Result<Vec<_>>>()?.concat())
    }

    /// Fills in what nobody has touched, from now on.
    ///
    /// # Errors
    /// When there are no threads to be had.
    pub fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        for _ in 0..FILLING {
            self.start("fill-behind", Shared::fill)?;
        }
        Ok(())
    }

    /// Waits for the end, for so long. Whether it has come.
    ///
    /// # Errors
    /// When content does not come any more, or cannot be put in its place.
    pub fn wait(&self, patience: Duration) -> Result<bool, String> {
        self.shared.wait(Instant::now() + patience)
    }

    /// How it went so far.
    #[must_use]
    pub fn filled(&self) -> Filled {
        self.shared.filled()
    }

    /// Lets go of everything: faults are the kernel's again.
    pub fn end(mut self) -> Filled {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            drop(thread.join());
        }
        self.filled()
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
