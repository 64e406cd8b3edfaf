//! The content of a process's own pages, told in a few bytes each: for comparing two processes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use crate::mappings::{self, Known};
use crate::pagemap;
use crate::reader::Reader;
use crate::scan::Scanner;
use crate::spans::Spans;
use crate::{Error, Span, PAGE, PAGE_BYTES};

/// Bytes that a worker reads at a time.
const STEP: u64 = 1 << 20;

/// Address and 64-bit hash of every page that is the process's own: of anonymous mappings, and of those of files where it has
/// written. Sorted by address. A page of zeros is the same as none, and left out.
///
/// Works on a frozen process, with so many `workers`; of a running one, it is what was there when it was read.
///
/// # Errors
/// When the process is gone, or we may not.
pub fn page_hashes(host: i32, workers: usize) -> Result<Vec<(u64, u64)>, Error> {
    let scanner = Scanner::open(host).map_err(Error::process("open the page tables", host))?;
    let reader = Reader::open(host).map_err(Error::process("open the memory", host))?;
    let all = mappings::maps(host).map_err(Error::process("read the mappings", host))?;
    let mut steps = Vec::new();
    for mapping in all.iter().filter(|mapping| is_own(mapping)) {
        let pages = private(&scanner, mapping.span()).map_err(Error::process("scan the pages", host))?;
        steps.extend(pages.iter().flat_map(parts));
    }
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let work = || {
            let mut hashes = Vec::new();
            let result = hash_steps(&reader, &steps, &next, &mut hashes);
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&mut hashes);
            result
        };
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            result =
                result.and(other.join().unwrap_or_else(|_| Err(std::io::Error::other("a worker panicked"))));
        }
        result
    })
    .map_err(Error::process("read the pages", host))?;
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_unstable();
    Ok(found)
}

/// The kernel's own pages in every process are no content of its.
fn is_own(mapping: &Known) -> bool {
    let kernel = ["[vdso]", "[vvar", "[vsyscall]", "[uprobes]"];
    mapping.private && !kernel.iter().any(|name| mapping.name.starts_with(name))
}

fn private(scanner: &Scanner, span: Span) -> std::io::Result<Spans> {
    match scanner.private(span) {
        // A kernel before 6.7.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
            let mut found = Spans::default();
            pagemap::entries(scanner.pagemap(), span, |page, entry| {
                if entry.is_populated() && entry.is_private() && !entry.is_guard() {
                    found.append(Span { start: page, end: page + PAGE });
                }
            })?;
            Ok(found)
        }
        found => found,
    }
}

fn parts(span: Span) -> impl Iterator<Item = Span> {
    let starts = (span.start..span.end).step_by(1 << 20);
    starts.map(move |start| Span { start, end: span.end.min(start + STEP) })
}

fn hash_steps(
    reader: &Reader,
    steps: &[Span],
    next: &AtomicUsize,
    hashes: &mut Vec<(u64, u64)>,
) -> std::io::Result<()> {
    const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let mut buffer = vec![0; 1 << 20];
    while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
        let length = usize::try_from(step.end - step.start).unwrap_or(buffer.len());
        let bytes = &mut buffer[..length];
        reader.read(step.start, bytes)?;
        let pages = (step.start..).step_by(PAGE_BYTES).zip(bytes.chunks(PAGE_BYTES));
        hashes.extend(pages.filter(|(_, page)| *page != ZEROS).map(|(address, page)| (address, hash(page))));
    }
    Ok(())
}

fn hash(page: &[u8]) -> u64 {
    let whole = blake3::hash(page);
    whole.as_bytes()[..8].try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::OwnPages;

    #[test]
    fn own_pages_are_hashed_but_not_zeros() {
        let own = OwnPages::new(8).unwrap();
        [1, 2, 5].iter().for_each(|page| own.write(*page, u8::from(*page != 5)));
        let me = i32::try_from(std::process::id()).unwrap();
        let all = page_hashes(me, 2).unwrap();
        assert!(all.windows(2).all(|two| two[0].0 < two[1].0));
        let range = own.start()..own.start() + 8 * PAGE;
        let ours: Vec<_> = all.into_iter().filter(|(address, _)| range.contains(address)).collect();
        assert_eq!(ours.iter().map(|(a, _)| (a - own.start()) / PAGE).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(ours[0].1, ours[1].1);
        let mut page = [0; 4096];
        page[0] = 1;
        assert_eq!(ours[0].1, hash(&page));
    }
}
