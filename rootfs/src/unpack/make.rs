//! One file, directory or link, made as a member of an archive says.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    chownat, fchmod, fchown, fremovexattr, fsetxattr, futimens, lsetxattr, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat, utimensat, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::extents::Extents;
use crate::members::Member;
use crate::walk::{attribute_names, through};
use crate::{names, Error};

/// Files are written in blocks; one that is all zero becomes a hole.
const BLOCK: usize = 64 * 1024;

/// What an entry says besides its content.
pub(super) struct Attributes {
    pub(super) mode: Mode,
    pub(super) owner: (Uid, Gid),
    pub(super) times: Timestamps,
    pub(super) extended: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) target: Option<Vec<u8>>,
    /// Of a regular file.
    pub(super) extents: Extents,
}

pub(super) fn attributes(member: &Member<'_, impl Read>) -> Result<Attributes, Error> {
    let path = member.path.as_path();
    let damaged = |problem| Error::Damaged { path: path.into(), problem };
    let number = |value: io::Result<u64>, problem| {
        value.ok().and_then(|value| u32::try_from(value).ok()).ok_or_else(|| damaged(problem))
    };
    let header = member.entry.header();
    let mode = header.mode().map_err(|_| damaged("has no mode"))? & 0o7777;
    let owner = (number(header.uid(), "has no owner")?, number(header.gid(), "has no group")?);
    let mut found = Attributes {
        mode: Mode::from_raw_mode(mode),
        owner: (Uid::from_raw(owner.0), Gid::from_raw(owner.1)),
        times: times(&header.mtime().unwrap_or_default().to_string()),
        extended: Vec::new(),
        target: None,
        extents: Extents::whole(member.entry.size()),
    };
    let bytes = |text: &str| hex::decode(text).map_err(|_| damaged("has an attribute that is no text"));
    member.records.read(path, |name, value| {
        match name {
            names::TIME => found.times = times(value),
            names::TARGET => found.target = Some(bytes(value)?),
            names::SPARSE => {
                let extents = Extents::read(value, member.entry.size());
                found.extents = extents.ok_or_else(|| damaged("has holes that make no sense"))?;
            }
            names::ATTRIBUTE => {
                let (name, value) =
                    value.split_once(':').ok_or_else(|| damaged("has an attribute without value"))?;
                found.extended.push((bytes(name)?, bytes(value)?));
            }
            _ => {}
        }
        Ok(())
    })?;
    // The overlay's own are not an archive's to set.
    found.extended.retain(|(name, _)| !name.starts_with(b"trusted."));
    Ok(found)
}

/// `SECONDS.FRACTION`; the time of the last access is that of the last change.
fn times(text: &str) -> Timestamps {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanoseconds = format!("{fraction:0<9}").get(..9).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let time = Timespec { tv_sec: seconds.parse().unwrap_or(0), tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

/// Into the directory that is there already, if one is.
pub(super) fn directory(parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let there =
        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match there {
        Ok(FileType::Directory) => {}
        Ok(_) => {
            unlinkat(parent, name, AtFlags::empty())?;
            mkdirat(parent, name, Mode::RWXU)?;
        }
        Err(Errno::NOENT) => mkdirat(parent, name, Mode::RWXU)?,
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    dress_again(openat(parent, name, flags, Mode::empty())?.as_fd(), attributes)
}

pub(super) fn file(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    attributes: &Attributes,
    content: &mut impl Read,
) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    let mut block = vec![0; BLOCK];
    for (offset, length) in &attributes.extents.data {
        file.seek(SeekFrom::Start(*offset))?;
        write_piece(&mut file, &mut content.by_ref().take(*length), &mut block)?;
    }
    file.set_len(attributes.extents.size)?;
    dress(file.as_fd(), attributes)?;
    futimens(&file, &attributes.times)?;
    Ok(attributes.extents.length())
}

/// Writes all of it but for blocks that are zero.
fn write_piece(file: &mut File, piece: &mut io::Take<&mut impl Read>, block: &mut [u8]) -> io::Result<()> {
    while piece.limit() > 0 {
        let count = usize::try_from(piece.limit()).unwrap_or(usize::MAX).min(block.len());
        let block = &mut block[..count];
        piece.read_exact(block)?;
        if block.iter().all(|&byte| byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(count).unwrap_or(0)))?;
        } else {
            file.write_all(block)?;
        }
    }
    Ok(())
}

pub(super) fn symlink(parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let target = attributes.target.as_deref().ok_or(io::ErrorKind::InvalidData)?;
    symlinkat(OsStr::from_bytes(target), parent, name)?;
    let (user, group) = attributes.owner;
    chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    for (key, value) in &attributes.extended {
        lsetxattr(through(parent, name), OsStr::from_bytes(key), value, XattrFlags::empty())?;
    }
    Ok(utimensat(parent, name, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn fifo(parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Open for both ends, so that nobody is waited for.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = openat(parent, name, flags, Mode::empty())?;
    dress(open.as_fd(), attributes)?;
    Ok(futimens(&open, &attributes.times)?)
}

/// The owner first: the kernel takes set-id bits and capabilities from what changes hands.
pub(super) fn dress(file: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    fchown(file, Some(attributes.owner.0), Some(attributes.owner.1))?;
    fchmod(file, attributes.mode)?;
    for (name, value) in &attributes.extended {
        fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    Ok(())
}

/// As [`dress`], for what was there before and may have attributes of its own.
pub(super) fn dress_again(file: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    let wanted: BTreeSet<&[u8]> = attributes.extended.iter().map(|(name, _)| name.as_slice()).collect();
    for name in attribute_names(Path::new(&format!("/proc/self/fd/{}/.", file.as_raw_fd())))? {
        let users = name.starts_with("user.") || name.starts_with("system.posix_acl_");
        if users && !wanted.contains(name.as_bytes()) {
            fremovexattr(file, &name)?;
        }
    }
    dress(file, attributes)
}
