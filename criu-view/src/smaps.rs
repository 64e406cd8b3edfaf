//! `/proc/PID/smaps` without the walk over all page tables that the kernel does for it: today's `maps`, with the flags
//! that the engine read beforehand.

use core::ffi::c_int;

use fastmig_criu_view_layout::{process_word, smaps, SMAPS, TEXT};

use crate::memory::{self, word};
use crate::{proc_path, sys, table};

/// A descriptor of the text for the process whose directory is `directory`; nothing when `maps` has a line that the text
/// has not.
pub(crate) fn open(directory: c_int) -> Option<isize> {
    let table = table::get()?;
    if table.count(SMAPS) == 0 {
        return None;
    }
    let process = process_word(proc_path::process_of(directory, b"")?);
    let index = table.first_not_below(SMAPS, process, 0);
    let entry = table.entry(SMAPS, index).filter(|entry| entry.get(smaps::PROCESS) == process)?;
    let (offset, length) = (entry.get(smaps::OFFSET), entry.get(smaps::LENGTH));
    let room = TEXT.entries.checked_mul(8)?;
    if offset.checked_add(length)? > room || offset % 8 != 0 {
        return None;
    }
    let known = sys::bytes(table.address(TEXT.at + offset / 8)?, usize::try_from(length).ok()?);
    let maps = Content::read(directory)?;
    let shown = merge(maps.bytes(), known)?;
    entry.add(smaps::SHOWN, 1);
    Some(shown)
}

/// A file with each line of `maps` and what `known` has below the same line.
fn merge(maps: &[u8], known: &[u8]) -> Option<isize> {
    let file = sys::call(libc::SYS_memfd_create, c"smaps".as_ptr() as usize, 1, 0, 0, 0, 0);
    let fd = c_int::try_from(file).ok().filter(|fd| *fd >= 0)?;
    let complete = write_merged(fd, maps, known).is_some();
    let rewound = complete && sys::call(libc::SYS_lseek, word(fd), 0, 0, 0, 0, 0) == 0;
    if !rewound {
        sys::call(libc::SYS_close, word(fd), 0, 0, 0, 0, 0);
        return None;
    }
    Some(file)
}

/// Both texts are sorted by address; the known one may have mappings that are gone, which are left out.
fn write_merged(fd: c_int, maps: &[u8], known: &[u8]) -> Option<()> {
    let mut rest = known;
    // What is to be written: a part of `known` that has grown as long as nothing was left out.
    let mut pending = rest.get(..0)?;
    for line in maps.split_inclusive(|byte| *byte == b'\n') {
        let skipped = position(rest, line)?;
        if skipped > 0 {
            write(fd, pending)?;
            rest = rest.get(skipped..)?;
            pending = rest.get(..0)?;
        }
        let length = section(rest)?;
        let begin = known.len().checked_sub(rest.len())?.checked_sub(pending.len())?;
        pending = known.get(begin..begin.checked_add(pending.len())?.checked_add(length)?)?;
        rest = rest.get(length..)?;
    }
    write(fd, pending)
}

/// How much of `text` stands before the section of `line`.
fn position(text: &[u8], line: &[u8]) -> Option<usize> {
    let mut skipped = 0_usize;
    loop {
        let rest = text.get(skipped..)?;
        if rest.starts_with(line) {
            return Some(skipped);
        }
        skipped = skipped.checked_add(section(rest)?)?;
    }
}

/// The length of the first mapping's lines.
fn section(text: &[u8]) -> Option<usize> {
    let mut length = 0_usize;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        // The others begin with a capital letter.
        let header = line.first().is_some_and(|byte| !byte.is_ascii_uppercase());
        if header && length > 0 {
            break;
        }
        length = length.checked_add(line.len())?;
    }
    (length > 0).then_some(length)
}

fn write(fd: c_int, mut text: &[u8]) -> Option<()> {
    while !text.is_empty() {
        let count = sys::call(libc::SYS_write, word(fd), text.as_ptr() as usize, text.len(), 0, 0, 0);
        text = text.get(usize::try_from(count).ok().filter(|count| *count > 0)?..)?;
    }
    Some(())
}

/// The content of `maps`, in memory of its own.
struct Content {
    address: usize,
    room: usize,
    length: usize,
}

impl Content {
    fn read(directory: c_int) -> Option<Self> {
        let (name, flags) = (c"maps".as_ptr() as usize, word(libc::O_RDONLY | libc::O_CLOEXEC));
        let file = sys::call(libc::SYS_openat, word(directory), name, flags, 0, 0, 0);
        let fd = c_int::try_from(file).ok().filter(|fd| *fd >= 0)?;
        // Room for the most mappings that a process may have by default.
        let room = 64 << 20;
        let content =
            memory::map_private(room, 0, 4096, false).map(|address| Self { address, room, length: 0 });
        let content = content.and_then(|content| content.fill(fd));
        sys::call(libc::SYS_close, word(fd), 0, 0, 0, 0, 0);
        content
    }

    fn fill(mut self, fd: c_int) -> Option<Self> {
        while self.length < self.room {
            let at = self.address.checked_add(self.length)?;
            let count = sys::call(libc::SYS_read, word(fd), at, self.room - self.length, 0, 0, 0);
            match usize::try_from(count).ok()? {
                0 => return Some(self),
                count => self.length = self.length.checked_add(count)?,
            }
        }
        None
    }

    fn bytes(&self) -> &[u8] {
        sys::bytes(self.address, self.length)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        memory::unmap(self.address, self.room);
    }
}
