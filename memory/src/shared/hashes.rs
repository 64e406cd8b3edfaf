//! The content of shared memory, told in a few bytes for each page: for comparing two trees.

use std::fs::File;

use super::find;
use super::object::{data, hash_steps, steps, Object, Pace};
use super::sending::hash;
use crate::{Error, Process, Span, PAGE_BYTES};

/// Shared memory, as the first process has it that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedContent {
    /// The process, by its inner pid.
    pub process: i32,
    /// Its mapping or its descriptor, as `/proc` names them.
    pub place: String,
    /// Offset and 64-bit hash of every page but those of zeros. Sorted by offset.
    pub pages: Vec<(u64, u64)>,
}

/// The content of all shared memory that is no file system's. Sorted.
///
/// Works on frozen processes, with several threads.
///
/// # Errors
/// When it cannot be read.
pub fn shared_hashes(processes: &[Process]) -> Result<Vec<SharedContent>, Error> {
    let mut processes = processes.to_vec();
    processes.sort_unstable_by_key(|process| process.id);
    let mut all = Vec::new();
    for (inode, place) in find::everywhere(&processes) {
        let owner = processes.iter().find_map(|process| {
            let own = place.path.strip_prefix(format!("/proc/{}", process.host)).ok()?;
            Some((process, own.to_string_lossy().into_owned()))
        });
        let Some((process, name)) = owner else { continue };
        let Some(object) = Object::open(0, inode, place) else { continue };
        let pages = pages(object.file(), object.area().size);
        let pages = pages.map_err(Error::process("read the shared memory", process.host))?;
        all.push(SharedContent { process: process.id, place: name, pages });
    }
    all.sort_unstable();
    Ok(all)
}

fn pages(file: &File, size: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let steps: Vec<Span> = data(file, size)?.iter().flat_map(steps).collect();
    let zeros = hash(&[0; PAGE_BYTES]);
    let mut pages = Vec::new();
    for (step, hashes) in steps.iter().zip(hash_steps(file, &steps, Pace::Fast)) {
        let all = (step.start..).step_by(PAGE_BYTES).zip(hashes?);
        pages.extend(all.filter(|(_, hash)| *hash != zeros));
    }
    Ok(pages)
}
