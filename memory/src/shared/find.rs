//! Which shared memory there is in a tree, and where it can be opened.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::watched::Mappers;
use crate::mappings::{self, Known};
use crate::{Process, Span};

const MEMFD: &str = "/memfd:";
const NO_FILE: &str = "/dev/zero (deleted)";

/// Where one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// In `/proc`, by a mapping or a descriptor.
    pub(super) path: PathBuf,
    /// For memory without a file: the furthest end of its mappings.
    pub(super) end: Option<u64>,
}

/// One mapping of memory without a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapper {
    /// The process, by its inner pid and as the host counts it.
    pub(super) process: i32,
    pub(super) host: i32,
    pub(super) span: Span,
    /// Of its first byte.
    pub(super) offset: u64,
    /// Its line in `maps`.
    line: String,
}

/// By inode: those that are mapped shared, and memfds that are only open.
pub(super) fn everywhere(processes: &[Process]) -> BTreeMap<u64, Place> {
    everywhere_by(processes).0
}

/// With the mappings of what has no file.
pub(super) fn everywhere_by(processes: &[Process]) -> (BTreeMap<u64, Place>, Mappers) {
    let (mut places, mappers) = mapped(processes);
    for process in processes {
        for (inode, path) in descriptors(process.host) {
            places.entry(inode).or_insert(Place { path, end: None });
        }
    }
    (places, mappers)
}

/// By inode: those that are mapped shared, and the mappings of what has no file. Processes that are gone have none.
pub(super) fn mapped(processes: &[Process]) -> (BTreeMap<u64, Place>, Mappers) {
    let mut places: BTreeMap<u64, Place> = BTreeMap::new();
    let mut mappers = Mappers::new();
    let Some(device) = device() else { return (places, mappers) };
    let text = format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device));
    for process in processes {
        for mapping in mappings::maps(process.host).unwrap_or_default() {
            let Some((on, end)) = file_of(&mapping) else { continue };
            let span = mapping.span();
            let offset = end - (span.end - span.start);
            let end = (mapping.name == NO_FILE).then_some(end);
            let ours = end.is_some() || mapping.name.starts_with(MEMFD);
            if mapping.private || on != text || !ours {
                continue;
            }
            let path = format!("/proc/{}/map_files/{:x}-{:x}", process.host, mapping.start, mapping.end);
            if end.is_some() {
                let (process, host) = (process.id, process.host);
                let mapper = Mapper { process, host, span, offset, line: mapping.line };
                mappers.entry(mapping.inode).or_default().push(mapper);
            }
            let place = Place { path: path.into(), end };
            let known = places.entry(mapping.inode).or_insert(place);
            known.end = known.end.max(end);
        }
    }
    (places, mappers)
}

/// The device of the mapped file, and up to where it is mapped.
fn file_of(mapping: &Known) -> Option<(&str, u64)> {
    let mut fields = mapping.line.split(' ').skip(2);
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    Some((fields.next()?, offset.checked_add(mapping.end - mapping.start)?))
}

/// Inodes of the memfds that a process has open, with their paths.
fn descriptors(host: i32) -> Vec<(u64, PathBuf)> {
    let Ok(all) = fs::read_dir(format!("/proc/{host}/fd")) else { return Vec::new() };
    let memfd = |path: PathBuf| {
        let target = fs::read_link(&path).ok()?;
        let named = target.as_os_str().as_bytes().starts_with(MEMFD.as_bytes());
        let status = named.then(|| rustix::fs::stat(&path).ok())??;
        (Some(status.st_dev) == device()).then_some((status.st_ino, path))
    };
    all.flatten().filter_map(|file| memfd(file.path())).collect()
}

/// The name of what was found at `place` and is held as `own`; empty where there is no file. Nothing where it has a name that
/// is none.
pub(super) fn name(own: &Path, place: &Place) -> Option<Vec<u8>> {
    if place.end.is_some() {
        return Some(Vec::new());
    }
    let target = fs::read_link(own).ok()?;
    let name = target.as_os_str().as_bytes().strip_prefix(MEMFD.as_bytes())?.strip_suffix(b" (deleted)")?;
    (!name.is_empty()).then(|| name.to_vec())
}

/// The device of all shared memory that has no file system of its own.
pub(super) fn device() -> Option<u64> {
    static DEVICE: OnceLock<Option<u64>> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        let own: OwnedFd = rustix::fs::memfd_create("device", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
        rustix::fs::fstat(own.as_fd()).ok().map(|status| status.st_dev)
    })
}
