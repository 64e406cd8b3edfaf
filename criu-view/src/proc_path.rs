//! Which process a descriptor in `/proc` is about.

use core::ffi::c_int;

use crate::memory::word;
use crate::start::number;
use crate::sys;

/// The process whose directory, with `suffix` after it, is open as `fd`.
pub(crate) fn process_of(fd: c_int, suffix: &[u8]) -> Option<i32> {
    let mut target = [0_u8; 64];
    let target = target_of(fd, &mut target)?.strip_suffix(suffix)?;
    let digits = target.rsplit(|byte| *byte == b'/').next()?;
    number(digits)
}

/// What the link of a descriptor says, when there is room for it.
pub(crate) fn target_of(fd: c_int, target: &mut [u8]) -> Option<&[u8]> {
    let mut path = [0_u8; 32];
    descriptor_path(b"/proc/self/fd/", fd, &mut path)?;
    let (path, room) = (path.as_ptr() as usize, target.len());
    let buffer = target.as_mut_ptr() as usize;
    let length = sys::call(libc::SYS_readlinkat, word(libc::AT_FDCWD), path, buffer, room, 0, 0);
    let length = usize::try_from(length).ok().filter(|length| *length < room)?;
    target.get(..length)
}

/// Writes `prefix`, a number and a zero.
pub(crate) fn descriptor_path(prefix: &[u8], number: c_int, path: &mut [u8]) -> Option<usize> {
    let mut digits = [0_u8; 10];
    let (mut rest, mut first) = (u32::try_from(number).ok()?, digits.len());
    loop {
        first = first.checked_sub(1)?;
        *digits.get_mut(first)? = b'0' + u8::try_from(rest % 10).ok()?;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = digits.get(first..)?;
    let length = prefix.len().checked_add(digits.len())?;
    path.get_mut(..prefix.len())?.iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
    path.get_mut(prefix.len()..length)?.iter_mut().zip(digits).for_each(|(to, from)| *to = *from);
    *path.get_mut(length)? = 0;
    Some(length)
}
