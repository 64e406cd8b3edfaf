//! A restore's own places for private mappings. CRIU maps each of them empty ("premap"), fills it, lets children inherit
//! it, and moves it to its address at the end. The offset of an anonymous mapping means nothing to the kernel; the engine
//! has put the mapping's address there, by which the filled memory is found and moved in.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use fastmig_criu_view_layout::{mapping, process_word, HUGE, MAPPINGS, REMAINDERS, SPANS};

use crate::memory::{self, address, signed};
use crate::table::{Entry, Table};
use crate::{areas, start, sys, table};

const KEYED: c_int = libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;

/// CRIU maps a place for all private mappings of a process with descriptor 0, which no other mapping has.
const RESERVING: c_int = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;

/// What CRIU asks `mmap` for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) address: usize,
    pub(crate) length: usize,
    pub(crate) protection: c_int,
    pub(crate) flags: c_int,
    pub(crate) fd: c_int,
    pub(crate) offset: u64,
}

/// Answers a mapping of CRIU's with memory that is filled; nothing when it is none of ours.
pub(crate) fn map(request: Request) -> Option<isize> {
    let table = restored_process()?;
    if request.address == 0 && request.flags == RESERVING && request.fd == 0 && request.protection == 0 {
        return reserve(table, request.length);
    }
    if request.flags & KEYED != KEYED || request.offset == 0 {
        return None;
    }
    let Request { length, address, protection, offset, .. } = request;
    let mapping = listed(table, offset, length);
    remember(Place { address, length, key: offset, protection, filled: mapping.is_some() });
    let mapping = mapping?;
    let done = if mapping.get(mapping::KIND) == mapping::OWN {
        take(table, mapping, address, protection)
    } else {
        inherit_anyhow(table, mapping, request)
    };
    mapping.add(mapping::TAKEN, if done.is_some() { 1 } else { mapping::FAILED });
    done.map(|()| signed(address))
}

/// CRIU does not see that a mapping is the parent's (it passes over one that follows a mapping of the child alone, or that
/// has grown or shrunk since the fork), but the parent's place is still there.
fn inherit_anyhow(table: Table, mapping: Entry, request: Request) -> Option<()> {
    let Request { address, length, protection, offset, .. } = request;
    let parent = place_of_parent(|place| place.key == offset)?;
    let moved = memory::move_to(parent.address, parent.length.min(length), address, length);
    (moved && memory::protect(address, length, protection)).then(|| mend(table, mapping, address))?
}

/// CRIU moves a place of the parent's into the child: what the child has of its own is put in.
pub(crate) fn inherit(old: usize, length: usize, flags: c_int, new: usize) -> Option<isize> {
    let table = restored_process()?;
    if flags != libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED {
        return None;
    }
    let parent = place_of_parent(|place| (place.address, place.length) == (old, length))?;
    let mapping = listed(table, parent.key, length);
    remember(Place { address: new, filled: mapping.is_some(), ..parent });
    let Some(mapping) = mapping else {
        return parent.filled.then(|| begin_empty(new, length, parent.protection));
    };
    let done = if mapping.get(mapping::KIND) == mapping::OWN {
        take(table, mapping, new, parent.protection)
    } else {
        memory::move_to(old, length, new, length).then(|| mend(table, mapping, new))?
    };
    mapping.add(mapping::TAKEN, if done.is_some() { 1 } else { mapping::FAILED });
    // Failed: the engine sees it and gives the restore up.
    Some(signed(new))
}

/// Whether these addresses are of a mapping that is filled. CRIU takes from a child what it has put into the parent at the same
/// place and has not seen in the child; where the child is filled it has not seen anything.
pub(crate) fn is_filled(address: usize, length: usize) -> bool {
    let end = address.saturating_add(length);
    let inside = |place: &Place| {
        place.filled && place.address <= address && end <= place.address.saturating_add(place.length)
    };
    restored_process().is_some() && find(own_half(), inside).is_some()
}

/// CRIU has dumped the child's pages and knows nothing of the parent's: what it does not know it would leave in the child.
fn begin_empty(address: usize, length: usize, protection: c_int) -> isize {
    really(Request { address, length, protection, flags: KEYED, fd: -1, offset: 0 })
}

/// The table, in a process that CRIU restores.
fn restored_process() -> Option<Table> {
    let restore = start::restore()?;
    let table = table::get()?;
    (table.count(MAPPINGS) > 0 && sys::process() != restore.main).then_some(table)
}

fn listed(table: Table, start: u64, length: usize) -> Option<Entry> {
    let mapping = table.find(MAPPINGS, process_word(sys::process()), start)?;
    // Another length: the engine finds it not taken.
    let same = mapping.get(mapping::END).checked_sub(start) == u64::try_from(length).ok();
    same.then_some(mapping)
}

/// Moves a mapping's part of its area to `to`.
fn take(table: Table, mapping: Entry, to: usize, protection: c_int) -> Option<()> {
    let (start, end) = (mapping.get(mapping::START), mapping.get(mapping::END));
    let from = areas::find(table, mapping.get(mapping::PROCESS), start, end)?;
    let length = usize::try_from(end - start).ok()?;
    (memory::move_to(from, length, to, length) && memory::protect(to, length, protection)).then_some(())
}

/// Copies the own spans of an inherited mapping, which lies at `at` (writable, as all of CRIU's places), and empties the
/// absent ones.
fn mend(table: Table, mapping: Entry, at: usize) -> Option<()> {
    let process = mapping.get(mapping::PROCESS);
    let (start, end) = (mapping.get(mapping::START), mapping.get(mapping::END));
    let place = |from: u64| at.wrapping_add(usize::try_from(from - start).unwrap_or(0));
    let spans = |first, count| {
        let (first, count) = (mapping.get(first), mapping.get(count));
        (first..first.saturating_add(count)).map(move |index| {
            let span = table.entry(SPANS, index).map(|span| (span.get(1), span.get(2)));
            span.filter(|(from, to)| start <= *from && from < to && *to <= end)
        })
    };
    for span in spans(mapping::OWN_FIRST, mapping::OWN_COUNT) {
        let (from, to) = span?;
        let source = areas::find(table, process, from, to)?;
        let length = usize::try_from(to - from).ok()?;
        sys::copy(source, place(from), length);
        memory::empty(source, length);
    }
    for span in spans(mapping::ABSENT_FIRST, mapping::ABSENT_COUNT) {
        let (from, to) = span?;
        memory::empty(place(from), usize::try_from(to - from).ok()?).then_some(())?;
    }
    Some(())
}

/// Reserves CRIU's place so that huge pages need not be split when they are moved in and out.
fn reserve(table: Table, length: usize) -> Option<isize> {
    let process = process_word(sys::process());
    let index = table.first_not_below(REMAINDERS, process, 0);
    let wanted = table.entry(REMAINDERS, index).filter(|entry| entry.get(0) == process)?;
    if index >= table.count(REMAINDERS) {
        return None;
    }
    let (remainder, unit) = (usize::try_from(wanted.get(1)).ok()?, usize::try_from(HUGE).ok()?);
    memory::map_at_remainder(length, remainder, unit, 0, 0).map(signed)
}

/// Where a mapping lies before CRIU moves it to its address.
#[derive(Clone, Copy)]
struct Place {
    address: usize,
    length: usize,
    /// The mapping's address in the end.
    key: u64,
    protection: c_int,
    /// Its content is of our filling, and CRIU does not know it.
    filled: bool,
}

const PLACES: usize = 1 << 15;
const PLACE_WORDS: usize = 5;

/// The places of this process and those of its parent, each in one half. They are copied by fork with everything else.
static HALVES: [[AtomicU64; PLACES * PLACE_WORDS]; 2] =
    [const { [const { AtomicU64::new(0) }; PLACES * PLACE_WORDS] }; 2];
static COUNTS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// The process whose places are in half [`CURRENT`].
static OWNER: AtomicI32 = AtomicI32::new(0);
static CURRENT: AtomicUsize = AtomicUsize::new(0);

/// The half of this process: at its first place, the one that was its parent's parent's.
fn own_half() -> usize {
    let process = sys::process();
    if OWNER.swap(process, Ordering::Relaxed) != process {
        let half = 1 - CURRENT.load(Ordering::Relaxed).min(1);
        CURRENT.store(half, Ordering::Relaxed);
        if let Some(count) = COUNTS.get(half) {
            count.store(0, Ordering::Relaxed);
        }
    }
    CURRENT.load(Ordering::Relaxed)
}

/// Without room it is forgotten: a child's mapping is not taken then, which the engine sees.
fn remember(place: Place) {
    let half = own_half();
    let Some((count, words)) = COUNTS.get(half).zip(HALVES.get(half)) else { return };
    let index = count.load(Ordering::Relaxed);
    let first = index.saturating_mul(PLACE_WORDS);
    let Some(words) = words.get(first..first.saturating_add(PLACE_WORDS)) else { return };
    let protection = u64::try_from(place.protection).unwrap_or(0);
    let values = [place.address as u64, place.length as u64, place.key, protection, place.filled.into()];
    words.iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    count.store(index + 1, Ordering::Relaxed);
}

fn place_of_parent(wanted: impl Fn(&Place) -> bool) -> Option<Place> {
    find(1 - own_half().min(1), wanted)
}

fn find(half: usize, wanted: impl Fn(&Place) -> bool) -> Option<Place> {
    let count = COUNTS.get(half)?.load(Ordering::Relaxed);
    let places = HALVES.get(half)?.chunks_exact(PLACE_WORDS).take(count);
    places.filter_map(Place::read).find(wanted)
}

impl Place {
    fn read(words: &[AtomicU64]) -> Option<Self> {
        let mut values = words.iter().map(|word| word.load(Ordering::Relaxed));
        Some(Self {
            address: usize::try_from(values.next()?).ok()?,
            length: usize::try_from(values.next()?).ok()?,
            key: values.next()?,
            protection: c_int::try_from(values.next()?).ok()?,
            filled: values.next()? != 0,
        })
    }
}

/// The answer of `mmap` as it is.
pub(crate) fn really(request: Request) -> isize {
    let Request { address, length, protection, flags, fd, offset } = request;
    let offset = usize::try_from(offset).unwrap_or(0);
    let (protection, flags, fd) = (memory::word(protection), memory::word(flags), memory::word(fd));
    let result = sys::call(libc::SYS_mmap, address, length, protection, flags, fd, offset);
    self::address(result).map_or(-1, signed)
}
