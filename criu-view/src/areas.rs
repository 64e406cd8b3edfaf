//! The memory that waits for its processes: areas of CRIU's own, each congruent to the addresses it is for, so that huge
//! pages fit. The engine fills them from outside.

use core::ffi::c_int;

use fastmig_criu_view_layout::{area, AREAS, HUGE, RANGES, WANTED};

use crate::memory::{self, PageMap, PAGE};
use crate::table::{Entry, Table};
use crate::{sys, table};

pub(crate) const HUGE_BYTES: usize = 2 << 20;

/// Makes the areas as they are wanted. Answers an error number, or 0.
pub(crate) fn lay_out() -> c_int {
    table::get().map_or(libc::EINVAL, |table| match (Layout { table, old: 0 }).run() {
        Ok(()) => 0,
        Err(error) => error,
    })
}

/// Both lists are sorted by process and address and walked together. What of an old area lies below the new area at hand
/// is needed by nobody any more, and is freed: the old ones are eaten up from their lower ends.
struct Layout {
    table: Table,
    /// The first old area that is not eaten up.
    old: u64,
}

/// How a new area and the next old one lie.
#[derive(PartialEq, Eq)]
enum Meeting {
    Apart,
    Inside,
    GrowsUp,
    Mixed,
}

impl Layout {
    fn run(mut self) -> Result<(), c_int> {
        let wanted = self.table.count(WANTED);
        for index in 0..wanted {
            let new = self.table.entry(WANTED, index).ok_or(libc::EINVAL)?;
            let location = self.place(new)?;
            new.set(area::LOCATION, location as u64);
        }
        while let Some(old) = self.next_old() {
            self.eat(old, old.get(area::END));
        }
        for index in 0..wanted {
            let pair = self.table.entry(WANTED, index).zip(self.table.entry(AREAS, index));
            let (new, area) = pair.ok_or(libc::EINVAL)?;
            (0..area::WORDS).for_each(|field| area.set(field, new.get(field)));
        }
        self.table.set_count(AREAS, wanted);
        Ok(())
    }

    fn next_old(&self) -> Option<Entry> {
        (self.old < self.table.count(AREAS)).then(|| self.table.entry(AREAS, self.old))?
    }

    fn place(&mut self, new: Entry) -> Result<usize, c_int> {
        while let Some(old) = self.next_old() {
            if key(old, area::END) > key(new, area::START) {
                break;
            }
            self.eat(old, old.get(area::END));
        }
        let Some(old) = self.next_old() else { return fresh(new) };
        match meeting(old, new) {
            Meeting::Apart => fresh(new),
            Meeting::Inside => Ok(self.keep(old, new)),
            Meeting::GrowsUp if !self.another_meets(new) => self.grow(old, new),
            Meeting::GrowsUp | Meeting::Mixed => self.copy(new),
        }
    }

    /// Whether the old area after the next one overlaps too.
    fn another_meets(&self, new: Entry) -> bool {
        let next = (self.old + 1 < self.table.count(AREAS)).then(|| self.table.entry(AREAS, self.old + 1));
        next.flatten().is_some_and(|next| key(next, area::START) < key(new, area::END))
    }

    /// Frees what an old area has below `end`, an address of its process.
    fn eat(&mut self, old: Entry, end: u64) {
        let (start, old_end) = (old.get(area::START), old.get(area::END));
        let end = end.min(old_end);
        if end > start {
            memory::unmap(location(old, start), length(start, end));
        }
        self.skip(old, end);
    }

    /// Forgets what an old area has below `end`.
    fn skip(&mut self, old: Entry, end: u64) {
        let (start, old_end) = (old.get(area::START), old.get(area::END));
        if end >= old_end {
            self.old += 1;
        } else if end > start {
            old.set(area::LOCATION, location(old, end) as u64);
            old.set(area::START, end);
        }
    }

    fn keep(&mut self, old: Entry, new: Entry) -> usize {
        self.eat_below(old, new);
        let place = location(old, new.get(area::START));
        self.skip(old, new.get(area::END));
        place
    }

    fn eat_below(&mut self, old: Entry, new: Entry) {
        if old.get(area::START) < new.get(area::START) {
            self.eat(old, new.get(area::START));
        }
    }

    /// An old area goes on beyond its end: where it lies if there is room, or moved without a copy.
    fn grow(&mut self, old: Entry, new: Entry) -> Result<usize, c_int> {
        self.eat_below(old, new);
        let (start, end) = (new.get(area::START), new.get(area::END));
        let place = location(old, start);
        let (length, new_length) = (length(start, old.get(area::END)), length(start, end));
        if memory::grow(place, length, new_length) {
            self.skip(old, end);
            return Ok(place);
        }
        let target = fresh(new)?;
        if !memory::move_to(place, length, target, new_length) {
            let error = sys::error();
            memory::unmap(target, new_length);
            return Err(error);
        }
        self.skip(old, end);
        Ok(target)
    }

    /// A new area that is made of several, or that began higher up.
    fn copy(&mut self, new: Entry) -> Result<usize, c_int> {
        let target = fresh(new)?;
        let mut pages = PageMap::open().ok_or_else(sys::error)?;
        while let Some(old) = self.next_old() {
            if key(old, area::START) >= key(new, area::END) {
                break;
            }
            let from = old.get(area::START).max(new.get(area::START));
            let to = old.get(area::END).min(new.get(area::END));
            let place = target.wrapping_add(length(new.get(area::START), from));
            copy_populated(&mut pages, location(old, from), place, length(from, to))?;
            self.eat(old, to);
        }
        Ok(target)
    }
}

/// Process and address, by which areas are sorted.
fn key(area: Entry, field: u64) -> (u64, u64) {
    (area.get(area::PROCESS), area.get(field))
}

fn meeting(old: Entry, new: Entry) -> Meeting {
    if key(old, area::START) >= key(new, area::END) {
        return Meeting::Apart;
    }
    let same_kind = (old.get(area::FLAGS) ^ new.get(area::FLAGS)) & area::NO_RESERVE == 0;
    if !same_kind || new.get(area::START) < old.get(area::START) {
        return Meeting::Mixed;
    }
    if new.get(area::END) <= old.get(area::END) {
        return Meeting::Inside;
    }
    Meeting::GrowsUp
}

pub(crate) fn length(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(0)
}

/// Where an address of the process lies.
pub(crate) fn location(area: Entry, address: u64) -> usize {
    let offset = address.wrapping_sub(area.get(area::START));
    usize::try_from(area.get(area::LOCATION).wrapping_add(offset)).unwrap_or(0)
}

fn fresh(new: Entry) -> Result<usize, c_int> {
    let start = new.get(area::START);
    let length = length(start, new.get(area::END));
    let remainder = usize::try_from(start % HUGE).unwrap_or(0);
    let reserve = new.get(area::FLAGS) & area::NO_RESERVE == 0;
    let place = memory::map_private(length, remainder, HUGE_BYTES, reserve).ok_or_else(sys::error)?;
    // Until CRIU restores: see `family`.
    memory::inherit(place, length, false);
    Ok(place)
}

fn copy_populated(pages: &mut PageMap, from: usize, to: usize, length: usize) -> Result<(), c_int> {
    let page = usize::try_from(PAGE).unwrap_or(4096);
    let mut offset = 0;
    while offset < length {
        let count = ((length - offset) / page).min(512);
        let populated = pages.populated(from.wrapping_add(offset), count).ok_or(libc::EIO)?;
        for (number, _) in populated.enumerate().filter(|(_, populated)| *populated) {
            let at = offset + number * page;
            sys::copy(from.wrapping_add(at), to.wrapping_add(at), page);
        }
        offset += count.max(1) * page;
    }
    Ok(())
}

/// Where a process's memory lies in CRIU's: the part of an area, and how long it may be.
pub(crate) fn find(table: Table, process: u64, start: u64, end: u64) -> Option<usize> {
    let area = table.at_or_below(AREAS, process, start)?;
    (start < end && end <= area.get(area::END)).then(|| location(area, start))
}

/// Empties the first `count` ranges. Answers an error number, or 0.
pub(crate) fn discard(count: u64) -> c_int {
    let Some(table) = table::get() else { return libc::EINVAL };
    for index in 0..count {
        let range = table.entry(RANGES, index).map(|span| (span.get(0), span.get(1), span.get(2)));
        let place = range
            .and_then(|(process, start, end)| Some((find(table, process, start, end)?, length(start, end))));
        let Some((place, length)) = place else { return libc::EINVAL };
        if !memory::empty(place, length) {
            return sys::error();
        }
    }
    0
}
