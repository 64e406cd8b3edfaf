//! One address space: what it misses, and what it does to that meanwhile.
//!
//! Pages are put in their places while nobody hears what the process does to its mappings, and the other way around. So
//! what is said to be missing is, or the kernel refuses with EAGAIN because it has something to say; nothing that was
//! thrown away comes back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::message::{self, Message};
use super::missing::{Missing, Place};
use crate::scan::Scanner;
use crate::{pagemap, sys, Span, PAGE};

#[derive(Debug)]
pub(super) struct Space {
    process: i32,
    uffd: OwnedFd,
    /// Taken for reading by those who put pages in place, and for writing by the one who hears.
    order: RwLock<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    missing: Missing,
    /// Where filling goes on.
    next: u64,
    /// The process is gone, or has executed another program.
    gone: bool,
}

/// What has become of pages that were to be put in their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// They are there; so many bytes are new.
    Done(u64),
    /// The process does something to its mappings: again, later.
    Later,
}

impl Space {
    pub(super) fn new(process: i32, uffd: OwnedFd, missing: impl Iterator<Item = (Span, i32)>) -> Self {
        Self::with(process, uffd, Missing::new(missing))
    }

    fn with(process: i32, uffd: OwnedFd, missing: Missing) -> Self {
        let state = Mutex::new(State { missing, next: 0, gone: false });
        Self { process, uffd, order: RwLock::default(), state }
    }

    /// The process; of one that was forked later, its ancestor.
    pub(super) fn process(&self) -> i32 {
        self.process
    }

    pub(super) fn uffd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        message::copy(&self.uffd)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_done(&self) -> bool {
        let state = self.state();
        state.gone || state.missing.is_empty()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// What is missing at an address, and some pages after it.
    pub(super) fn at(&self, address: u64, most: u64) -> Option<(Span, Place)> {
        self.state().missing.at(address, most)
    }

    /// What is said to be missing, and is there.
    pub(super) fn untimely(&self, host: i32) -> io::Result<Vec<Span>> {
        let scanner = Scanner::open(host)?;
        let missing = self.state().missing.spans();
        let mut found = Vec::new();
        for span in missing {
            // The zero page is something, too.
            pagemap::entries(scanner.pagemap(), span, |page, entry| {
                if entry.is_populated() {
                    found.push(Span { start: page, end: page + PAGE });
                }
            })?;
        }
        Ok(found)
    }

    /// The next piece to be filled in.
    pub(super) fn next(&self, most: u64) -> Option<(Span, Place)> {
        let mut state = self.state();
        if state.gone {
            return None;
        }
        let found = state.missing.from(state.next, most);
        let found = found.or_else(|| state.missing.from(0, most))?;
        state.next = found.0.end;
        Some(found)
    }

    /// Lets go of mappings in which nothing is missing.
    pub(super) fn let_go(&self, mappings: &[Span]) {
        let state = self.state();
        for mapping in mappings.iter().filter(|mapping| !state.missing.touches(**mapping)) {
            // Those that were never registered are refused.
            drop(sys::uffd_unregister(self.uffd(), mapping.start, mapping.end));
        }
    }

    /// Hears all that there is to be heard: addresses that are waited for. `born` is told of children.
    pub(super) fn hear(&self, mut born: impl FnMut(Self)) -> Vec<u64> {
        let mut faults = Vec::new();
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        while let Ok(messages) = message::batch(self.uffd()) {
            if messages.is_empty() {
                break;
            }
            let mut state = self.state();
            for message in messages {
                match message {
                    Message::Fault(address) => faults.push(address & !(PAGE - 1)),
                    // Before the lock is free: what is missing here is missing there, whatever comes here next.
                    Message::Fork(uffd) => born(Self::with(self.process, uffd, state.missing.clone())),
                    Message::Remap { from, to, length } => state.missing.move_to(from, to, length),
                    Message::Unmapped { start, end } | Message::Emptied { start, end } => {
                        state.missing.remove(Span { start, end });
                    }
                }
            }
        }
        faults
    }

    /// Puts content in its place, which was missing from `start` on and came from `place`, as far as that is still so.
    pub(super) fn put(&self, start: u64, place: Place, content: &[u8]) -> io::Result<Put> {
        let mut done = 0;
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut nowhere) = (0, None::<(u64, u32)>);
        while at < content.len() {
            let (address, left) = (start + at as u64, (content.len() - at) as u64);
            // Only what is still missing, and of the same origin.
            let still = self
                .at(address, left)
                .filter(|(_, now)| now.of == place.of && now.address == place.address + at as u64);
            let Some((span, _)) = still else {
                at += PAGE_LENGTH.min(content.len() - at);
                continue;
            };
            let whole = usize::try_from(span.end - span.start).unwrap_or(0);
            // What lies in several mappings is refused as a whole.
            let length = if nowhere.is_some_and(|(at, _)| at == address) { PAGE_LENGTH } else { whole };
            let copied = sys::uffd_copy(self.uffd(), address, &content[at..at + length]);
            let passed = match copied {
                Ok(bytes) => {
                    done += bytes as u64;
                    bytes
                }
                Err(e) => match e.raw_os_error() {
                    // It is there: somebody was quicker.
                    Some(libc::EEXIST) => PAGE_LENGTH,
                    Some(libc::ESRCH) => {
                        self.state().gone = true;
                        return Ok(Put::Done(done));
                    }
                    // It has something to say first.
                    Some(libc::EAGAIN) => return Ok(Put::Later),
                    // Were something on its way that we have not heard, it would be told so the second time.
                    Some(libc::ENOENT) => {
                        let tries =
                            nowhere.filter(|(at, _)| *at == address).map_or(1, |(_, tries)| tries + 1);
                        nowhere = Some((address, tries));
                        if tries < 3 {
                            continue;
                        }
                        tracing::debug!(
                            process = self.process,
                            address,
                            "missing memory has no place any more"
                        );
                        PAGE_LENGTH
                    }
                    _ => return Err(e),
                },
            };
            self.state().missing.remove(Span { start: address, end: address + passed as u64 });
            at += passed;
        }
        Ok(Put::Done(done))
    }

    /// Answers a fault where nothing is missing. Not yet, when the process does something to its mappings.
    pub(super) fn put_zeros(&self, address: u64) -> Put {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        if self.at(address, PAGE).is_some() {
            return Put::Later;
        }
        match sys::uffd_zero(self.uffd(), address, PAGE).map_err(|e| e.raw_os_error()) {
            Ok(()) => Put::Done(0),
            Err(Some(libc::EAGAIN)) => Put::Later,
            // It is there, or its mapping is gone: whoever waits finds out.
            Err(_) => {
                self.wake(address);
                Put::Done(0)
            }
        }
    }

    pub(super) fn wake(&self, address: u64) {
        drop(sys::uffd_wake(self.uffd(), address, PAGE));
    }

    /// A page that cannot be put anywhere, though nobody has said that it is gone.
    pub(super) fn give_up(&self, address: u64) {
        self.state().missing.remove(Span { start: address, end: address + PAGE });
    }
}

const PAGE_LENGTH: usize = crate::PAGE_BYTES;
