//! Shared memory. A dump looks for its content with `lseek(SEEK_DATA)`, and finds none in a file that is hidden. A restore
//! makes a memfd and fills it from `pagemap-shmem-ID.img`: when it opens that image, the segment that the engine has
//! filled takes the place of the empty one.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, Ordering};

use fastmig_criu_view_layout::{mapping::FAILED, segment, shared, SEGMENTS, SHARED};

use crate::memory::{self, unsigned, word};
use crate::proc_path::{descriptor_path, target_of};
use crate::start::{number, Restore};
use crate::table::Entry;
use crate::{start, sys, table};

/// Whether the content of `fd` is hidden; counts that it was asked for.
pub(crate) fn is_hidden(fd: c_int) -> bool {
    let Some(table) = table::get() else { return false };
    if table.count(SHARED) == 0 {
        return false;
    }
    let found = sys::identity(fd).and_then(|(device, inode)| table.find(SHARED, device, inode));
    if let Some(file) = found {
        file.add(shared::ASKED, 1);
    }
    found.is_some()
}

/// The memfd that this process made last.
static LATEST: AtomicI32 = AtomicI32::new(-1);

/// Remembers a new memfd.
pub(crate) fn made(fd: isize) {
    if start::restore().is_some() {
        LATEST.store(c_int::try_from(fd).unwrap_or(-1), Ordering::Relaxed);
    }
}

/// CRIU opens an image: if it is that of a segment, the memfd that it has just made becomes the filled one.
pub(crate) fn image_opened(name: &[u8]) {
    let Some(restore) = start::restore() else { return };
    let Some(table) = table::get() else { return };
    if table.count(SEGMENTS) == 0 {
        return;
    }
    let digits = name.strip_prefix(b"pagemap-shmem-").and_then(|rest| rest.strip_suffix(b".img"));
    let Some(id) = digits.and_then(large_number) else { return };
    let latest = LATEST.swap(-1, Ordering::Relaxed);
    if latest < 0 {
        return; // the parent's image, or a segment of System V
    }
    let mut segments = (0..table.count(SEGMENTS)).filter_map(|index| table.entry(SEGMENTS, index));
    if let Some(segment) = segments.find(|segment| segment.get(segment::ID) == id) {
        let done = replace(&restore, segment, latest).is_some();
        segment.add(segment::TAKEN, if done { 1 } else { FAILED });
    }
}

fn large_number(digits: &[u8]) -> Option<u64> {
    if digits.len() < 10 {
        return number(digits).and_then(|value| u64::try_from(value).ok());
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Puts the filled segment over `empty`, with its name checked, its size and its seals taken over.
fn replace(restore: &Restore, segment: Entry, empty: c_int) -> Option<()> {
    let fd = c_int::try_from(segment.get(segment::FD)).ok()?;
    // Restored tasks have closed what they inherited.
    let mut prefix = [0_u8; 32];
    let length = descriptor_path(b"/proc/", restore.main, &mut prefix)?;
    prefix.get_mut(length..)?.iter_mut().zip(b"/fd/").for_each(|(to, from)| *to = *from);
    let mut path = [0_u8; 64];
    descriptor_path(prefix.get(..length.checked_add(4)?)?, fd, &mut path)?;
    let flags = word(libc::O_RDWR | libc::O_CLOEXEC);
    let opened = sys::call(libc::SYS_openat, word(libc::AT_FDCWD), path.as_ptr() as usize, flags, 0, 0, 0);
    let filled = c_int::try_from(opened).ok().filter(|fd| *fd >= 0)?;
    let named = segment.get(segment::NAME) != 0;
    let done = take_over(filled, empty, named);
    sys::call(libc::SYS_close, word(filled), 0, 0, 0, 0, 0);
    done
}

fn take_over(filled: c_int, empty: c_int, named: bool) -> Option<()> {
    let (mut ours, mut theirs) = ([0_u8; 320], [0_u8; 320]);
    if named && target_of(filled, &mut ours)? != target_of(empty, &mut theirs)? {
        return None;
    }
    let (size, old_size) = (sys::size(empty)?, sys::size(filled)?);
    if size < old_size {
        return None; // there would be content that has no place
    }
    sys::call(libc::SYS_ftruncate, word(filled), usize::try_from(size).ok()?, 0, 0, 0, 0);
    let seals = sys::call(libc::SYS_fcntl, word(empty), word(libc::F_GET_SEALS), 0, 0, 0, 0);
    if seals > 0 {
        let add = word(libc::F_ADD_SEALS);
        if sys::call(libc::SYS_fcntl, word(filled), add, unsigned(seals), 0, 0, 0) < 0 {
            return None;
        }
    }
    let replaced = sys::call(libc::SYS_dup3, word(filled), word(empty), 0, 0, 0, 0) >= 0;
    replaced.then_some(())
}

/// Makes the segments from `first` on and maps them, so that they can be filled. Answers an error number, or 0.
pub(crate) fn make_segments(first: u64) -> c_int {
    let Some(table) = table::get() else { return libc::EINVAL };
    for index in first..table.count(SEGMENTS) {
        let made = table.entry(SEGMENTS, index).map_or(Err(libc::EINVAL), make_segment);
        if let Err(error) = made {
            return error;
        }
    }
    0
}

fn make_segment(segment: Entry) -> Result<(), c_int> {
    let name = segment.address(segment::NAME).ok_or(libc::EINVAL)?;
    let bytes = usize::try_from(segment::NAME_WORDS * 8).unwrap_or(0);
    if !sys::bytes(name, bytes).contains(&0) {
        return Err(libc::ENAMETOOLONG);
    }
    let size = usize::try_from(segment.get(segment::SIZE)).map_err(|_| libc::EINVAL)?;
    // Shared memory without a file has this name in CRIU's hands.
    let name = if segment.get(segment::NAME) == 0 { c"/dev/zero".as_ptr() as usize } else { name };
    let flags = usize::try_from(libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC).unwrap_or(0);
    let made = sys::call(libc::SYS_memfd_create, name, flags, 0, 0, 0, 0);
    let fd = c_int::try_from(made).ok().filter(|fd| *fd >= 0).ok_or_else(sys::error)?;
    if sys::call(libc::SYS_ftruncate, word(fd), size, 0, 0, 0, 0) < 0 {
        return Err(sys::error());
    }
    let location = memory::map_shared(fd, size).ok_or_else(sys::error)?;
    // A child's mapping would stand in the way of seals.
    memory::inherit(location, size, false);
    segment.set(segment::FD, unsigned(made) as u64);
    segment.set(segment::LOCATION, location as u64);
    Ok(())
}

/// Unmaps the segments, whose descriptors stay open.
pub(crate) fn unmap_segments() {
    let Some(table) = table::get() else { return };
    for segment in (0..table.count(SEGMENTS)).filter_map(|index| table.entry(SEGMENTS, index)) {
        let place = usize::try_from(segment.get(segment::LOCATION)).unwrap_or(0);
        memory::unmap(place, usize::try_from(segment.get(segment::SIZE)).unwrap_or(0));
        segment.set(segment::LOCATION, 0);
    }
}
