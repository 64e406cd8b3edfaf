//! A dump's choice of pages: CRIU scans or reads the page tables of each mapping, and finds nothing in those that are hidden.

use core::ffi::c_int;

use fastmig_criu_view_layout::{hidden, process_word, HIDDEN};

use crate::memory::{word, PAGE};
use crate::table::{Entry, Table};
use crate::{proc_path, sys, table};

/// `ioctl(PAGEMAP_SCAN)`.
pub(crate) const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// A scan for this looks for marks that belong to the mappings, not to their content. Nothing is hidden that has any.
const PAGE_IS_GUARD: u64 = 1 << 8;

/// The kernel's `struct pm_scan_arg`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    /// Address of an array of three words for each range.
    ranges: u64,
    room: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    returned: u64,
}

const RANGE_BYTES: u64 = 24;

/// Bytes that a file of page tables has for each page.
const WORD: usize = 8;

/// Answers a scan with what is not hidden; nothing when it is none of ours.
pub(crate) fn scan(fd: c_int, scan: &mut Scan) -> Option<isize> {
    let table = table::get()?;
    if table.count(HIDDEN) == 0 || scan.flags != 0 || scan.max_pages != 0 {
        return None;
    }
    let process = process_word(proc_path::process_of(fd, b"/pagemap")?);
    next_hidden(table, process, scan.start).filter(|mapping| mapping.get(hidden::START) < scan.end)?;
    Some(scan_between(table, process, fd, scan))
}

/// Takes out what is hidden, if `count` bytes were read of page tables (kernels before 6.7): a word for each page.
pub(crate) fn blank(fd: c_int, buffer: usize, count: isize, offset: usize) {
    let Some(table) = table::get().filter(|table| table.count(HIDDEN) > 0) else { return };
    let Some(process) = proc_path::process_of(fd, b"/pagemap").map(process_word) else { return };
    let words = sys::lent_answer(buffer, usize::try_from(count).unwrap_or(0) / WORD);
    let address = |page: usize| u64::try_from(page).unwrap_or(u64::MAX).saturating_mul(PAGE);
    let start = address(offset / WORD);
    let (mut at, end) = (start, start.saturating_add(address(words.len())));
    while at < end {
        let next = next_hidden(table, process, at).filter(|mapping| mapping.get(hidden::START) < end);
        let Some(mapping) = next else { return };
        let (from, to) = (at.max(mapping.get(hidden::START)), end.min(mapping.get(hidden::END)));
        let page = |address: u64| usize::try_from((address - start) / PAGE).unwrap_or(usize::MAX);
        if let Some(pages) = words.get_mut(page(from)..page(to)) {
            pages.fill(0);
        }
        cover(mapping, from, to);
        at = to;
    }
}

/// The first hidden mapping of `process` that ends after `address`.
fn next_hidden(table: Table, process: u64, address: u64) -> Option<Entry> {
    let below = table.at_or_below(HIDDEN, process, address);
    if let Some(mapping) = below.filter(|mapping| mapping.get(hidden::END) > address) {
        return Some(mapping);
    }
    let index = table.first_not_below(HIDDEN, process, address);
    let mapping = (index < table.count(HIDDEN)).then(|| table.entry(HIDDEN, index))??;
    (mapping.get(hidden::PROCESS) == process).then_some(mapping)
}

/// Scans what lies between hidden mappings, piece by piece, as far as there is room in the answer.
fn scan_between(table: Table, process: u64, fd: c_int, whole: &mut Scan) -> isize {
    let asks_for_content = whole.mask & PAGE_IS_GUARD == 0;
    let (mut at, mut used) = (whole.start, 0);
    while at < whole.end {
        let next = next_hidden(table, process, at);
        let start = next.map_or(whole.end, |mapping| mapping.get(hidden::START)).min(whole.end);
        if at < start {
            if used == whole.room {
                break;
            }
            let ranges = whole.ranges.wrapping_add(used.wrapping_mul(RANGE_BYTES));
            let mut piece =
                Scan { start: at, end: start, walk_end: 0, ranges, room: whole.room - used, ..*whole };
            let found = really(fd, &mut piece);
            let Ok(found) = u64::try_from(found) else { return found };
            used = used.saturating_add(found);
            at = piece.walk_end;
            if at < start {
                break; // no more room
            }
        } else if let Some(mapping) = next {
            let end = mapping.get(hidden::END).min(whole.end);
            if asks_for_content {
                cover(mapping, at, end);
            }
            at = end;
        }
    }
    whole.walk_end = at;
    isize::try_from(used).unwrap_or(isize::MAX)
}

/// Notes that a part of a hidden mapping was asked for.
fn cover(mapping: Entry, from: u64, to: u64) {
    let covered = mapping.get(hidden::COVERED).max(mapping.get(hidden::START));
    if from <= covered && covered < to {
        mapping.set(hidden::COVERED, to);
    }
}

fn really(fd: c_int, scan: &mut Scan) -> isize {
    let argument = core::ptr::from_mut(scan) as usize;
    let request = usize::try_from(PAGEMAP_SCAN).unwrap_or(0);
    sys::call(libc::SYS_ioctl, word(fd), request, argument, 0, 0, 0)
}
