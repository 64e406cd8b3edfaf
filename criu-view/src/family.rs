//! Who inherits which areas. A fork copies the page tables of all that it hands on, so each child gets the areas of its own
//! branch of the tree alone, and its parent gives them up.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use fastmig_criu_view_layout::{area, process_word, AREAS, FAMILY};

use crate::table::{Entry, Table};
use crate::{memory, start, sys, table};

/// The first words of the kernel's `struct clone_args`: flags, pidfd, `child_tid`, `parent_tid`, `exit_signal`, stack,
/// `stack_size`, tls, `set_tid`, `set_tid_size`.
const CLONE_WORDS: usize = 10;
const FLAGS: usize = 0;
const SET_TID: usize = 8;
const SET_TID_COUNT: usize = 9;

/// Requests and answers that CRIU's first process has looked for on its socket, two times each.
static LOOKED: AtomicU32 = AtomicU32::new(0);

/// The look at the first answer after the request: CRIU has announced that it begins, and forks its root next. Until then
/// areas are not inherited, for CRIU forks to try what the kernel can do.
const BEGINS: u32 = 3;

/// What the first process has handed on is still mapped by it too.
static HANDED_ON: AtomicBool = AtomicBool::new(false);

/// CRIU's first process looks for a message on its socket.
pub(crate) fn looks_for_message() {
    if HANDED_ON.swap(false, Ordering::Relaxed) {
        if let Some(table) = table::get() {
            areas(table).for_each(give_up);
        }
    }
    if LOOKED.fetch_add(1, Ordering::Relaxed) + 1 == BEGINS {
        if let Some(table) = table::get() {
            areas(table).for_each(|area| inherit(area, true));
        }
    }
}

/// Makes a process as `clone3` does, with the areas of its branch.
///
/// What is in no branch of a process is not there any more; its own areas it has taken, and where they were something else may
/// be by now. So only what is of the child's branch is touched.
pub(crate) fn clone(arguments: usize, size: usize) -> Option<isize> {
    let (restore, table) = (start::restore()?, table::get()?);
    let child = child_of(arguments, size)?;
    let in_main = sys::process() == restore.main;
    let related = table.count(FAMILY) > 0;
    if !related && !in_main || LOOKED.load(Ordering::Relaxed) < BEGINS {
        return None;
    }
    if related && !in_main && link_of(table, child).is_none() {
        // CRIU makes up the leaders of sessions and groups that have ended, and no image says who comes below them: they get all
        // that is still here, which nobody keeps. What their parent hands on later is a copy that costs nothing more.
        areas(table).for_each(|area| inherit(area, true));
        return None;
    }
    let goes_along = |area: &Entry| in_main || descends(table, area.get(area::PROCESS), child);
    areas(table).filter(goes_along).for_each(|area| inherit(area, true));
    let result = sys::call(libc::SYS_clone3, arguments, size, 0, 0, 0, 0);
    if result == 0 && related {
        let own = |area: &Entry| area.get(area::PROCESS) == child;
        areas(table).filter(|area| goes_along(area) && !own(area)).for_each(|area| inherit(area, false));
    }
    if result > 0 && in_main {
        // It waits for an answer next, and its child for that: time to give them up, half a millisecond for each GiB.
        HANDED_ON.store(true, Ordering::Relaxed);
    } else if result > 0 {
        areas(table).filter(goes_along).for_each(give_up);
    }
    Some(result)
}

/// The process that a `clone3` makes, when it is one of those that are restored.
fn child_of(arguments: usize, size: usize) -> Option<u64> {
    if size < CLONE_WORDS * 8 {
        return None;
    }
    let words = sys::lent(arguments, CLONE_WORDS);
    let word = |at: usize| words.get(at).copied();
    let shares = u64::try_from(libc::CLONE_VM).ok()?;
    if word(FLAGS)? & shares != 0 || word(SET_TID_COUNT)? == 0 {
        return None;
    }
    let child = sys::lent_number(usize::try_from(word(SET_TID)?).ok()?);
    (child > 0).then(|| process_word(child))
}

/// Whether a process is `ancestor`, or below it.
fn descends(table: Table, mut process: u64, ancestor: u64) -> bool {
    // No deeper than there are processes, should the links be a circle.
    for _ in 0..=table.count(FAMILY) {
        if process == ancestor {
            return true;
        }
        match link_of(table, process) {
            Some(link) => process = link.get(1),
            None => return false,
        }
    }
    false
}

/// What is said of a process's parent.
fn link_of(table: Table, process: u64) -> Option<Entry> {
    let index = table.first_not_below(FAMILY, process, 0);
    let link = table.entry(FAMILY, index).filter(|link| link.get(0) == process);
    link.filter(|_| index < table.count(FAMILY))
}

fn areas(table: Table) -> impl Iterator<Item = Entry> {
    (0..table.count(AREAS)).filter_map(move |index| table.entry(AREAS, index))
}

fn extent(area: Entry) -> (usize, usize) {
    let length = area.get(area::END).saturating_sub(area.get(area::START));
    (usize::try_from(area.get(area::LOCATION)).unwrap_or(0), usize::try_from(length).unwrap_or(0))
}

/// Whether children get an area.
fn inherit(area: Entry, inherited: bool) {
    let (place, length) = extent(area);
    memory::inherit(place, length, inherited);
}

fn give_up(area: Entry) {
    let (place, length) = extent(area);
    memory::unmap(place, length);
}
