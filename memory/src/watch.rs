//! The writes of one process, by one of the two methods.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::inject::{self, Injected};
use crate::mappings::Known;
use crate::pagemap::{self, Entry};
use crate::places::Places;
use crate::runs::runs;
use crate::scan::{Populated, Scanner};
use crate::spans::Spans;
use crate::{parallel, sys, zero_page, Error, Method, Span};

/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`, `_WP_HUGETLBFS_SHMEM`, `_WP_UNPOPULATED`, `_WP_ASYNC`.
const FEATURES: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;

/// Shared memory that is write-protected at once: some 100 ms per GiB.
const PART: usize = 8 << 20;

/// Sees what a process writes.
#[derive(Debug)]
pub(crate) enum Watch {
    WriteProtect {
        uffd: OwnedFd,
        /// What we have registered with it.
        registered: Spans,
    },
    SoftDirty {
        /// Where the pages were when the bits were cleared.
        places: Places,
    },
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
            Method::SoftDirty => Ok((Self::SoftDirty { places: Places::default() }, Duration::ZERO)),
            Method::WriteProtect => {
                let Injected { uffd, stop } = inject::inject(host)?;
                sys::uffd_api(uffd.as_fd(), FEATURES)
                    .map_err(Error::process("set up the userfaultfd", host))?;
                Ok((Self::WriteProtect { uffd, registered: Spans::default() }, stop))
            }
        }
    }

    /// Sees to it that the writes to these mappings are seen, of all that are `known`.
    pub(crate) fn register_all(
        &mut self,
        scanner: &Scanner,
        known: &[Known],
        mappings: &[Span],
    ) -> Vec<Registration> {
        let Self::WriteProtect { uffd, registered } = self else {
            return vec![Registration::Kept; mappings.len()];
        };
        let is_kept = |mapping: &Span| {
            registered.covers(*mapping) && matches!(scanner.is_registered(*mapping), Ok(true))
        };
        let kept: Vec<bool> = mappings.iter().map(is_kept).collect();
        let mut refused = Vec::new();
        if kept.contains(&false) {
            // What has been replaced is to be known for that, when nobody can tell any more.
            let lasting = registered.iter().filter(|span| matches!(scanner.is_registered(*span), Ok(true)));
            *registered = lasting.collect();
            for run in runs(known) {
                // What comes of it each mapping is asked below.
                if let Err(e) = sys::uffd_register(uffd.as_fd(), run.start, run.end) {
                    tracing::debug!(?run, error = %e, "a range of the address space is refused");
                    refused.push(run);
                }
            }
        }
        let state = |(mapping, kept): (&Span, bool)| {
            if kept {
                return Registration::Kept;
            }
            // One that is not registered by now has come since, and is as long as nobody knows: the next round sees it.
            let alone = refused.iter().any(|run| run.start < mapping.end && mapping.start < run.end);
            self.settle(scanner, *mapping, alone)
        };
        mappings.iter().zip(kept).map(state).collect()
    }

    /// Sees to it that the writes to a mapping are seen.
    pub(crate) fn register(&mut self, scanner: &Scanner, mapping: Span) -> Registration {
        self.settle(scanner, mapping, true)
    }

    /// What has become of a mapping. `alone`: it is registered by itself when it is not yet, which splits one that has grown.
    fn settle(&mut self, scanner: &Scanner, mapping: Span, alone: bool) -> Registration {
        let Self::WriteProtect { uffd, registered } = self else { return Registration::Kept };
        let is_registered = match scanner.is_registered(mapping) {
            Ok(true) if registered.covers(mapping) => return Registration::Kept,
            Ok(is_registered) => is_registered,
            Err(_) => return Registration::Refused,
        };
        let one = Spans::one(mapping);
        *registered = registered.without(&one);
        if !is_registered && (!alone || sys::uffd_register(uffd.as_fd(), mapping.start, mapping.end).is_err())
        {
            return Registration::Refused;
        }
        // An exec leaves us with a userfaultfd of memory that is nobody's any more.
        if !matches!(scanner.is_registered(mapping), Ok(true)) {
            return Registration::Refused;
        }
        *registered = registered.union(&one);
        Registration::Fresh
    }

    /// Sees to it that the writes by a shared mapping are seen, from here on. Whether they are.
    ///
    /// Of soft-dirty bits too little is left where a page of a shared mapping is given back to the kernel.
    pub(crate) fn watch_shared(&mut self, scanner: &Scanner, mapping: Span) -> io::Result<bool> {
        match (self.register(scanner, mapping), &self) {
            (Registration::Kept, Self::WriteProtect { .. }) => scanner.protect_shared(mapping).map(|()| true),
            (Registration::Fresh, Self::WriteProtect { uffd, .. }) => {
                // Also where there is no page yet. In parts: meanwhile its process can map nothing.
                let mut parts = (mapping.start..mapping.end).step_by(PART);
                let protect = |start: u64| {
                    sys::uffd_write_protect(uffd.as_fd(), start, mapping.end.min(start + PART as u64))
                };
                parts.try_for_each(protect).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// What was written by it since; nothing where it is not the one that was registered.
    pub(crate) fn shared_written(&self, scanner: &Scanner, mapping: Span) -> Option<Spans> {
        let seen = matches!(self, Self::WriteProtect { .. }) && self.holds(scanner, mapping);
        seen.then(|| scanner.written_shared(mapping).ok())?
    }

    /// Whether a mapping is still the one that was registered.
    pub(crate) fn holds(&self, scanner: &Scanner, mapping: Span) -> bool {
        match self {
            Self::SoftDirty { .. } => true,
            Self::WriteProtect { registered, .. } => {
                registered.covers(mapping) && matches!(scanner.is_registered(mapping), Ok(true))
            }
        }
    }

    /// What was written in each mapping since the last time, and what is populated in it; from here on, writes count anew.
    ///
    /// What is written while it looks is either among what is returned as written, or will be the next time.
    pub(crate) fn take(&mut self, host: i32, scanner: &Scanner, mappings: &[Span]) -> Result<Taken, Error> {
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
            Self::SoftDirty { places } => {
                // Between a look at the bits and their clearing nothing may be written.
                let (looked, stop) = inject::halted(host, || {
                    let now = soft_dirty(scanner, places, mappings);
                    std::fs::write(format!("/proc/{host}/clear_refs"), "4").and(now)
                })?;
                let (looks, seen) = looked.map_err(failed)?;
                *places = Places::of(seen);
                let look = |now: Populated| Look {
                    written: now.written.clone(),
                    now: Populated { clean: now.clean.union(&now.written), written: Spans::default(), ..now },
                };
                Ok(Taken { looks: looks.into_iter().map(look).collect(), stop })
            }
        }
    }

    /// What is populated in each mapping of a frozen process, and which of it was written. Changes nothing.
    pub(crate) fn look(&self, scanner: &Scanner, mappings: &[Span]) -> io::Result<Vec<Populated>> {
        match self {
            Self::WriteProtect { .. } => {
                let pieces = pieces(mappings);
                let looks = parallel::map_few(&pieces, |(_, piece)| scanner.populated_frozen(*piece));
                let looks = looks.into_iter().collect::<io::Result<Vec<_>>>()?;
                Ok(joined(mappings, &pieces, &looks))
            }
            Self::SoftDirty { places } => soft_dirty(scanner, places, mappings).map(|(looks, _)| looks),
        }
    }
}

/// What was found in pieces, for each mapping.
fn joined(mappings: &[Span], pieces: &[(usize, Span)], looks: &[Populated]) -> Vec<Populated> {
    let mut whole = vec![Populated::default(); mappings.len()];
    for ((at, _), look) in pieces.iter().zip(looks) {
        whole[*at].append(look);
    }
    whole
}

/// Pieces for several threads, each with the place of its mapping in the list.
fn pieces(mappings: &[Span]) -> Vec<(usize, Span)> {
    const LENGTH: u64 = 128 << 20;
    let of = |(at, mapping): (usize, &Span)| {
        let Span { start, end } = *mapping;
        let starts = (start..end).step_by(128 << 20);
        starts.map(move |start| (at, Span { start, end: end.min(start + LENGTH) }))
    };
    mappings.iter().enumerate().flat_map(of).collect()
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

/// A page that is there: its address, and what the page tables say.
type Seen = (u64, Entry);

/// What the bits say of each mapping, and where the pages are.
fn soft_dirty(
    scanner: &Scanner,
    places: &Places,
    mappings: &[Span],
) -> io::Result<(Vec<Populated>, Vec<Seen>)> {
    let zeros = zero_page::frame();
    let pieces = pieces(mappings);
    let looks = parallel::map(&pieces, |(_, piece)| {
        let (mut found, mut seen) = (Populated::default(), Vec::new());
        pagemap::entries(scanner.pagemap(), *piece, |page, entry| {
            if sort(&mut found, places, page, entry, zeros) {
                seen.push((page, entry));
            }
        })?;
        Ok((found, seen))
    });
    let (looks, seen): (Vec<_>, Vec<_>) =
        looks.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
    Ok((joined(mappings, &pieces, &looks), seen.concat()))
}

/// Whether anything is there.
fn sort(found: &mut Populated, places: &Places, page: u64, entry: Entry, zeros: Option<u64>) -> bool {
    let span = Span { start: page, end: page + crate::PAGE };
    found.guarded |= entry.is_guard();
    if !entry.is_populated() || (entry.frame().is_some() && entry.frame() == zeros) {
        return false;
    }
    if entry.is_soft_dirty() || !places.has(page, entry) {
        found.written.append(span);
    } else {
        found.clean.append(span);
    }
    true
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
        let pages = || (0_u64..).map(|at| at * 4096).zip(words.map(Entry));
        let places = Places::of(pages());
        let there: Vec<bool> =
            pages().map(|(page, entry)| sort(&mut found, &places, page, entry, Some(9))).collect();
        assert_eq!(there, [true, true, false, false, false, true]);
        let span = |from: u64, to: u64| Span { start: from * 4096, end: to * 4096 };
        assert_eq!(found.clean.into_vec(), [span(0, 1)]);
        assert_eq!(found.written.into_vec(), [span(1, 2), span(5, 6)]);
        assert!(!found.guarded);
        let mut guarded = Populated::default();
        sort(&mut guarded, &places, 0, Entry(1 << 58), None);
        assert!(guarded.guarded);
    }

    #[test]
    fn a_clean_page_in_another_frame_is_another_page() {
        const PRESENT: u64 = 1 << 63;
        let mut found = Populated::default();
        sort(&mut found, &Places::of([(0, Entry(PRESENT | 1))]), 0, Entry(PRESENT | 2), None);
        assert_eq!(found.written.into_vec(), [Span { start: 0, end: 4096 }]);
    }
}
