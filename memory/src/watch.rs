//! The writes of one process, by one of the two methods.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::inject::{self, Injected};
use crate::pagemap::{self, Entry};
use crate::scan::{Populated, Scanner};
use crate::spans::Spans;
use crate::{parallel, sys, zero_page, Error, Method, Span};

/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`, `_WP_HUGETLBFS_SHMEM`, `_WP_UNPOPULATED`, `_WP_ASYNC`.
const FEATURES: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;

/// Sees what a process writes.
#[derive(Debug)]
pub(crate) enum Watch {
    WriteProtect {
        uffd: OwnedFd,
        /// What we have registered with it.
        registered: Spans,
    },
    SoftDirty,
}

/// What has become of a mapping that is to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registration {
    /// As it was: what is clean was not written since the last scan.
    Kept,
    /// It is new, or another has taken its place: all of it counts as written.
    Fresh,
    /// It cannot be watched: another userfaultfd has it, or it is gone.
    Refused,
}

impl Watch {
    /// Begins; how long the process was stopped for it.
    pub(crate) fn begin(method: Method, host: i32) -> Result<(Self, Duration), Error> {
        match method {
            Method::SoftDirty => Ok((Self::SoftDirty, Duration::ZERO)),
            Method::WriteProtect => {
                let Injected { uffd, stop } = inject::inject(host)?;
                sys::uffd_api(uffd.as_fd(), FEATURES)
                    .map_err(Error::process("set up the userfaultfd", host))?;
                Ok((Self::WriteProtect { uffd, registered: Spans::default() }, stop))
            }
        }
    }

    /// Sees to it that the writes to a mapping are seen.
    pub(crate) fn register(&mut self, scanner: &Scanner, mapping: Span) -> Registration {
        let Self::WriteProtect { uffd, registered } = self else { return Registration::Kept };
        match scanner.is_registered(mapping) {
            Ok(true) if registered.covers(mapping) => return Registration::Kept,
            Ok(_) => {}
            Err(_) => return Registration::Refused,
        }
        let one = Spans::one(mapping);
        *registered = registered.without(&one);
        if sys::uffd_register(uffd.as_fd(), mapping.start, mapping.end).is_err() {
            return Registration::Refused;
        }
        // An exec leaves us with a userfaultfd of memory that is nobody's any more.
        if !matches!(scanner.is_registered(mapping), Ok(true)) {
            return Registration::Refused;
        }
        *registered = registered.union(&one);
        Registration::Fresh
    }

    /// Whether a mapping is still the one that was registered.
    pub(crate) fn holds(&self, scanner: &Scanner, mapping: Span) -> bool {
        match self {
            Self::SoftDirty => true,
            Self::WriteProtect { registered, .. } => {
                registered.covers(mapping) && matches!(scanner.is_registered(mapping), Ok(true))
            }
        }
    }

    /// What was written in each mapping since the last time, and what is populated in it; from here on, writes count anew.
    ///
    /// What is written while it looks is either among what is returned as written, or will be the next time.
    pub(crate) fn take(&self, host: i32, scanner: &Scanner, mappings: &[Span]) -> Result<Taken, Error> {
        let failed = |e: io::Error| Error::process("scan the pages", host)(e);
        match self {
            Self::WriteProtect { .. } => {
                let mut looks = Vec::new();
                for mapping in mappings {
                    let written = scanner.take_written(*mapping).map_err(failed)?;
                    looks.push(Look { written, now: scanner.populated(*mapping).map_err(failed)? });
                }
                Ok(Taken { looks, stop: Duration::ZERO })
            }
            Self::SoftDirty => {
                // Between a look at the bits and their clearing nothing may be written.
                let (looked, stop) = inject::halted(host, || {
                    let now = self.look(scanner, mappings);
                    std::fs::write(format!("/proc/{host}/clear_refs"), "4").and(now)
                })?;
                let look = |now: Populated| Look {
                    written: now.written.clone(),
                    now: Populated { clean: now.clean.union(&now.written), written: Spans::default(), ..now },
                };
                Ok(Taken { looks: looked.map_err(failed)?.into_iter().map(look).collect(), stop })
            }
        }
    }

    /// What is populated in each mapping, and which of it was written. Changes nothing.
    pub(crate) fn look(&self, scanner: &Scanner, mappings: &[Span]) -> io::Result<Vec<Populated>> {
        let pieces: Vec<(usize, Span)> =
            (0..).zip(mappings).flat_map(|(at, span)| pieces(at, *span)).collect();
        let looks = parallel::map(&pieces, |(_, piece)| match self {
            Self::WriteProtect { .. } => scanner.populated(*piece),
            Self::SoftDirty => soft_dirty(scanner, *piece),
        });
        let mut whole = vec![Populated::default(); mappings.len()];
        for ((at, _), look) in pieces.into_iter().zip(looks) {
            whole[at].append(&look?);
        }
        Ok(whole)
    }
}

/// Pieces for several threads of the mapping `at` some place of a list.
fn pieces(at: usize, mapping: Span) -> impl Iterator<Item = (usize, Span)> {
    const LENGTH: u64 = 128 << 20;
    let starts = (mapping.start..mapping.end).step_by(128 << 20);
    starts.map(move |start| (at, Span { start, end: mapping.end.min(start + LENGTH) }))
}

/// What [`Watch::take`] finds.
#[derive(Debug)]
pub(crate) struct Taken {
    /// One for each mapping.
    pub(crate) looks: Vec<Look>,
    /// How long the process was stopped for it.
    pub(crate) stop: Duration,
}

/// One mapping.
#[derive(Debug)]
pub(crate) struct Look {
    /// Written since the last time; some of it may be gone meanwhile.
    pub(crate) written: Spans,
    /// A moment later.
    pub(crate) now: Populated,
}

fn soft_dirty(scanner: &Scanner, mapping: Span) -> io::Result<Populated> {
    let mut found = Populated::default();
    let zeros = zero_page::frame();
    pagemap::entries(scanner.pagemap(), mapping, |page, entry| sort(&mut found, page, entry, zeros))?;
    Ok(found)
}

fn sort(found: &mut Populated, page: u64, entry: Entry, zeros: Option<u64>) {
    let span = Span { start: page, end: page + crate::PAGE };
    found.guarded |= entry.is_guard();
    if !entry.is_populated() || (entry.frame().is_some() && entry.frame() == zeros) {
        return;
    }
    if entry.is_soft_dirty() {
        found.written.append(span);
    } else {
        found.clean.append(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_dirty_bits_are_sorted() {
        const PRESENT: u64 = 1 << 63;
        const DIRTY: u64 = 1 << 55;
        let words = [PRESENT | 1, PRESENT | 2 | DIRTY, DIRTY, 0, PRESENT | 9 | DIRTY, 1 << 62 | DIRTY | 5];
        let mut found = Populated::default();
        for (at, word) in (0_u64..).zip(words) {
            sort(&mut found, at * 4096, Entry(word), Some(9));
        }
        let span = |from: u64, to: u64| Span { start: from * 4096, end: to * 4096 };
        assert_eq!(found.clean.into_vec(), [span(0, 1)]);
        assert_eq!(found.written.into_vec(), [span(1, 2), span(5, 6)]);
        assert!(!found.guarded);
        let mut guarded = Populated::default();
        sort(&mut guarded, 0, Entry(1 << 58), None);
        assert!(guarded.guarded);
    }
}
