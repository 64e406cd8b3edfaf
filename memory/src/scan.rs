//! `PAGEMAP_SCAN` (Linux 6.7): what the page tables say of many pages at once, holes skipped.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use crate::spans::Spans;
use crate::sys::{self, Region, ScanArgument};
use crate::Span;

const WP_ALLOWED: u64 = 1;
const WRITTEN: u64 = 2;
const FILE: u64 = 4;
const PRESENT: u64 = 8;
const SWAPPED: u64 = 16;
const ZERO: u64 = 32;
const HUGE: u64 = 64;
const GUARD: u64 = 256;

const WRITE_PROTECT: u64 = 1;
const CHECK_ASYNC: u64 = 2;

/// Regions of one call: more than there are pages in a piece, and never more than these (see [`Scanner::scan`]).
const AT_ONCE: usize = 512;
/// What one call scans.
const PIECE: u64 = 1 << 20;
/// What is looked at for whether there is anything.
const BLOCK: u64 = 1 << 30;

/// What is populated in a mapping. Pages of zeros that the kernel shares among all are not: there is nothing to send.
#[derive(Debug, Clone, Default)]
pub(crate) struct Populated {
    /// Not written since the last write-protecting scan.
    pub(crate) clean: Spans,
    /// Written since.
    pub(crate) written: Spans,
    /// Whether a page is none, but a guard (`MADV_GUARD_INSTALL`), or may be.
    pub(crate) guarded: bool,
}

impl Populated {
    /// Adds what was found behind it.
    pub(crate) fn append(&mut self, next: &Self) {
        next.clean.iter().for_each(|span| self.clean.append(span));
        next.written.iter().for_each(|span| self.written.append(span));
        self.guarded |= next.guarded;
    }
}

/// The page tables of one process, or of what it was when this was opened: an exec takes them away.
#[derive(Debug)]
pub(crate) struct Scanner {
    pagemap: File,
}

impl Scanner {
    pub(crate) fn open(host: i32) -> io::Result<Self> {
        Ok(Self { pagemap: File::open(format!("/proc/{host}/pagemap"))? })
    }

    /// Our own page tables.
    pub(crate) fn own() -> io::Result<Self> {
        Ok(Self { pagemap: File::open("/proc/self/pagemap")? })
    }

    /// What is in memory, of whatever kind.
    pub(crate) fn present(&self, span: Span) -> io::Result<Spans> {
        let argument = ScanArgument { mask: PRESENT, returned: PRESENT, ..ScanArgument::default() };
        let mut found = Spans::default();
        self.scan_at_once(span, argument, &mut |region: &Region| {
            found.append(Span { start: region.start, end: region.end });
        })?;
        Ok(found)
    }

    pub(crate) fn pagemap(&self) -> &File {
        &self.pagemap
    }

    /// Whether all mappings in `span` are registered for asynchronous write-protection. Looks at no page.
    pub(crate) fn is_registered(&self, span: Span) -> io::Result<bool> {
        // Registered ones are of no interest by their kind, others fail the check: neither is walked.
        let argument = ScanArgument {
            flags: CHECK_ASYNC,
            inverted: WP_ALLOWED,
            mask: WP_ALLOWED,
            returned: PRESENT,
            ..ScanArgument::default()
        };
        match self.scan(span, argument, |_| {}) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// What was written since the last such scan; write-protects it. Mappings that are not registered are skipped.
    pub(crate) fn take_written(&self, span: Span) -> io::Result<Spans> {
        // "Any of" keeps the kernel from putting markers into holes.
        let argument = ScanArgument {
            flags: WRITE_PROTECT,
            inverted: ZERO,
            mask: WRITTEN | ZERO,
            any_of: PRESENT | SWAPPED,
            returned: WRITTEN,
            ..ScanArgument::default()
        };
        self.collect(span, argument)
    }

    /// Write-protects again what was written of a shared mapping that was all write-protected, holes too. Tells nothing of it.
    pub(crate) fn protect_shared(&self, span: Span) -> io::Result<()> {
        let argument = ScanArgument { flags: WRITE_PROTECT, mask: WRITTEN, ..ScanArgument::default() };
        // In parts: meanwhile its process can map nothing.
        for block in cut(span, BLOCK / 8) {
            let mut argument = ScanArgument { start: block.start, end: block.end, ..argument };
            sys::pagemap_scan(self.pagemap.as_fd(), &mut argument, &mut [])?;
            if argument.walk_end < block.end {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        Ok(())
    }

    /// What was written of such a mapping since, given back to the kernel meanwhile or not. Changes nothing.
    ///
    /// Asked for this alone, the kernel tells also of pages that are not there and were not protected: somebody has written one
    /// and given it back. (Test: `no_write_to_watched_memory_is_missed`.)
    pub(crate) fn written_shared(&self, span: Span) -> io::Result<Spans> {
        let argument = ScanArgument { mask: WRITTEN, returned: WRITTEN, ..ScanArgument::default() };
        let mut found = Spans::default();
        self.scan_at_once(span, argument, &mut |region: &Region| {
            found.append(Span { start: region.start, end: region.end });
        })?;
        Ok(found)
    }

    /// What is populated, and changes nothing.
    pub(crate) fn populated(&self, span: Span) -> io::Result<Populated> {
        let guards = guards();
        let guard = if matches!(guards, Guards::Told) { GUARD } else { 0 };
        let argument = ScanArgument {
            inverted: ZERO,
            mask: ZERO,
            any_of: PRESENT | SWAPPED | guard,
            // Whether it is swapped is asked for only where a guard looks like it: regions are longer without.
            returned: WRITTEN | guard | if matches!(guards, Guards::Hidden) { SWAPPED } else { 0 },
            ..ScanArgument::default()
        };
        let mut found = Populated::default();
        // It protects nothing, so that nothing is lost however much there is to tell.
        self.scan_at_once(span, argument, &mut |region: &Region| {
            let part = Span { start: region.start, end: region.end };
            found.guarded |= region.categories & (GUARD | SWAPPED) != 0;
            if region.categories & WRITTEN == 0 {
                found.clean.append(part);
            } else {
                found.written.append(part);
            }
        })?;
        Ok(found)
    }

    /// The same of a frozen process, whose mappings cannot go meanwhile: all of `span` is mapped.
    ///
    /// Asked for what is not clean, the kernel takes a quarter of the time (3.6 ms for 4 GiB of small pages, seen on 6.18): it tells
    /// nothing of most pages. Hence what it does not tell of counts as clean, and must be mapped.
    pub(crate) fn populated_frozen(&self, span: Span) -> io::Result<Populated> {
        let guards = guards();
        let guard = if matches!(guards, Guards::Told) { GUARD } else { 0 };
        let may_be_guard = if matches!(guards, Guards::Hidden) { SWAPPED } else { guard };
        let argument = ScanArgument {
            inverted: PRESENT,
            any_of: WRITTEN | PRESENT | ZERO,
            returned: WRITTEN | PRESENT | SWAPPED | ZERO | guard,
            ..ScanArgument::default()
        };
        let mut found = Populated::default();
        let mut from = span.start;
        self.scan_at_once(span, argument, &mut |region: &Region| {
            found.clean.append(Span { start: from, end: region.start });
            from = region.end;
            found.guarded |= region.categories & may_be_guard != 0;
            let part = Span { start: region.start, end: region.end };
            let is_populated = region.categories & (PRESENT | SWAPPED) != 0 && region.categories & ZERO == 0;
            match region.categories & WRITTEN {
                _ if !is_populated => {}
                0 => found.clean.append(part),
                _ => found.written.append(part),
            }
        })?;
        found.clean.append(Span { start: from, end: span.end });
        Ok(found)
    }

    /// Huge pages.
    pub(crate) fn huge(&self, span: Span) -> io::Result<Spans> {
        let argument =
            ScanArgument { inverted: ZERO, mask: HUGE | ZERO, returned: HUGE, ..ScanArgument::default() };
        self.collect(span, argument)
    }

    /// Pages that are no file's, in memory or swap.
    pub(crate) fn private(&self, span: Span) -> io::Result<Spans> {
        let guard = if matches!(guards(), Guards::Told) { GUARD } else { 0 };
        let argument = ScanArgument {
            inverted: ZERO | FILE | guard,
            mask: ZERO | FILE | guard,
            any_of: PRESENT | SWAPPED,
            returned: FILE,
            ..ScanArgument::default()
        };
        self.collect(span, argument)
    }

    fn collect(&self, span: Span, argument: ScanArgument) -> io::Result<Spans> {
        let mut found = Spans::default();
        self.scan(span, argument, |region| found.append(Span { start: region.start, end: region.end }))?;
        Ok(found)
    }

    /// Scans what there is in `span`, piece by piece: where a scan that write-protects has more than 512 regions to tell, and room
    /// for them, the kernel (seen on 6.18) goes on by itself and protects pages of which it tells nothing, so that what was
    /// written there would be lost. With room for 512 it comes back to us. (Test: `what_is_written_densely_is_told`.)
    fn scan(&self, span: Span, argument: ScanArgument, mut each: impl FnMut(&Region)) -> io::Result<()> {
        if argument.flags & CHECK_ASYNC != 0 {
            return self.scan_at_once(span, argument, &mut each);
        }
        for block in cut(span, BLOCK) {
            // A mapping may be reserved by the terabyte.
            if span.end - span.start > BLOCK && !self.has_pages(block)? {
                continue;
            }
            for piece in cut(block, PIECE) {
                self.scan_at_once(piece, argument, &mut each)?;
            }
        }
        Ok(())
    }

    /// Whether anything is there at all.
    fn has_pages(&self, span: Span) -> io::Result<bool> {
        let mut argument = ScanArgument {
            any_of: PRESENT | SWAPPED,
            returned: PRESENT,
            max_pages: 1,
            start: span.start,
            end: span.end,
            ..ScanArgument::default()
        };
        let found = sys::pagemap_scan(self.pagemap.as_fd(), &mut argument, &mut [Region::default()])?;
        Ok(found > 0)
    }

    fn scan_at_once(
        &self,
        span: Span,
        mut argument: ScanArgument,
        each: &mut impl FnMut(&Region),
    ) -> io::Result<()> {
        let mut regions = [Region::default(); AT_ONCE];
        let mut from = span.start;
        while from < span.end {
            argument.start = from;
            argument.end = span.end;
            let count = sys::pagemap_scan(self.pagemap.as_fd(), &mut argument, &mut regions)?;
            regions.iter().take(count).for_each(&mut *each);
            if argument.walk_end <= from {
                // The process has ended, and its page tables with it.
                return Err(io::ErrorKind::NotFound.into());
            }
            from = argument.walk_end;
        }
        Ok(())
    }
}

/// Parts of a span that end at multiples of `size`.
fn cut(span: Span, size: u64) -> impl Iterator<Item = Span> {
    let part = move |start: u64| {
        let end = (start - start % size).saturating_add(size).min(span.end);
        (start < span.end).then_some(Span { start, end })
    };
    std::iter::successors(part(span.start), move |before| part(before.end))
}

/// What a scan tells of guard pages.
#[derive(Debug, Clone, Copy)]
enum Guards {
    /// There are, and it tells them (Linux 6.15).
    Told,
    /// There are, and it calls them swapped (6.13).
    Hidden,
    /// There are none.
    None,
}

fn guards() -> Guards {
    static GUARDS: OnceLock<Guards> = OnceLock::new();
    *GUARDS.get_or_init(|| {
        let tell = || -> io::Result<()> {
            let argument = ScanArgument { mask: GUARD, returned: GUARD, ..ScanArgument::default() };
            let scanner = Scanner { pagemap: File::open("/proc/self/pagemap")? };
            scanner.scan(Span { start: 0x1000, end: 0x2000 }, argument, |_| {})
        };
        match (tell(), sys::has_guards()) {
            (Ok(()), _) => Guards::Told,
            (Err(_), true) => Guards::Hidden,
            (Err(_), false) => Guards::None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE;

    #[test]
    fn a_span_is_cut_without_gaps() {
        let span = |start, end| Span { start, end };
        let parts: Vec<_> = cut(span(0x5000, 0x12_3000), 0x10_0000).collect();
        assert_eq!(parts, [span(0x5000, 0x10_0000), span(0x10_0000, 0x12_3000)]);
        assert_eq!(cut(span(0x1000, 0x2000), 0x10_0000).collect::<Vec<_>>(), [span(0x1000, 0x2000)]);
        assert_eq!(cut(span(0x1000, 0x1000), 0x10_0000).count(), 0);
    }

    #[test]
    fn what_is_populated_is_told() {
        let own = sys::OwnPages::new(64).unwrap();
        [3, 4, 9].iter().for_each(|page| own.write(*page, 1));
        own.read(20); // the page of zeros
        let me = i32::try_from(std::process::id()).unwrap();
        let scanner = Scanner::open(me).unwrap();
        let span = Span { start: own.start(), end: own.start() + 64 * PAGE };
        let found = match scanner.populated(span) {
            Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => {
                return eprintln!("skipped: no PAGEMAP_SCAN");
            }
            found => found.unwrap(),
        };
        let part = |from: u64, to: u64| Span { start: span.start + from * PAGE, end: span.start + to * PAGE };
        let all = found.clean.union(&found.written);
        assert_eq!(all.into_vec(), [part(3, 5), part(9, 10)]);
        assert!(!found.guarded);
        let frozen = scanner.populated_frozen(span).unwrap();
        assert_eq!(frozen.clean.into_vec(), found.clean.into_vec());
        assert_eq!(frozen.written.into_vec(), found.written.into_vec());
        assert!(!frozen.guarded);
        assert!(!scanner.is_registered(span).unwrap());
        assert_eq!(scanner.private(span).unwrap().into_vec(), [part(3, 5), part(9, 10)]);
    }
}
