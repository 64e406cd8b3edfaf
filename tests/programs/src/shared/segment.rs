//! One piece of shared memory, of one of the kinds that there are.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use nix::sys::memfd::{memfd_create, MFdFlags};

use crate::pattern::{page, seed, Page, PAGE, WORDS};
use crate::sys::{Mapping, Source};

/// Where `shm_open` puts its files.
const POSIX: &str = "/dev/shm/fastmig-test";

/// How a page is reached. Where there is one way only, that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As memory.
    Mapping,
    /// By read(2) and write(2).
    Call,
}

/// The memory, under the name of its kind.
#[derive(Debug)]
pub(super) struct Segment {
    name: &'static str,
    number: u64,
    mapping: Option<Mapping>,
    file: Option<File>,
}

impl Segment {
    /// One of each kind.
    pub(super) fn all(pages: usize) -> Result<Vec<Self>> {
        let anonymous = Mapping::new(Source::Shared, pages).context("no anonymous shared memory")?;
        let system_v = Mapping::new(Source::Segment, pages).context("no segment of System V")?;
        let posix = File::options().read(true).write(true).create(true).truncate(true).open(POSIX);
        let posix = posix.with_context(|| format!("cannot make {POSIX}"))?;
        let kinds = [
            ("anonymous", Some(anonymous), None),
            ("system-v", Some(system_v), None),
            ("posix", Some(mapped(&posix, pages)?), Some(posix)),
            memfd("memfd", pages, true)?,
            memfd("memfd-unmapped", pages, false)?,
        ];
        let segments = (0_u64..).zip(kinds);
        Ok(segments.map(|(number, (name, mapping, file))| Self { name, number, mapping, file }).collect())
    }

    /// The name of its kind.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    fn content(&self, index: usize, generation: u64) -> Page {
        page(seed([self.number, index as u64, generation]))
    }

    /// Gives a page the content of this generation.
    pub(super) fn write(&self, index: usize, generation: u64, way: Way) -> Result<()> {
        let content = self.content(index, generation);
        match (&self.mapping, &self.file) {
            (Some(mapping), None) => mapping.write(index, &content),
            (Some(mapping), Some(_)) if way == Way::Mapping => mapping.write(index, &content),
            (_, Some(file)) => file.write_all_at(&bytes(&content), (index * PAGE) as u64)?,
            (None, None) => {}
        }
        Ok(())
    }

    /// Why a page is not of this generation.
    pub(super) fn fault(&self, index: usize, generation: u64, way: Way) -> Option<String> {
        match self.read(index, way) {
            Ok(found) if found == self.content(index, generation) => None,
            Ok(found) => {
                let older = (0..generation).rev().find(|&older| found == self.content(index, older));
                Some(format!(
                    "{}: {}, by {way:?}",
                    self.name,
                    older.map_or_else(
                        || format!("{:#018x} ...", found[0]),
                        |older| format!("generation {older}"),
                    )
                ))
            }
            Err(error) => Some(format!("{}: {error}", self.name)),
        }
    }

    fn read(&self, index: usize, way: Way) -> io::Result<Page> {
        match (&self.mapping, &self.file) {
            (Some(mapping), file) if way == Way::Mapping || file.is_none() => Ok(mapping.read(index)),
            (_, Some(file)) => {
                let mut bytes = [0; PAGE];
                file.read_exact_at(&mut bytes, (index * PAGE) as u64)?;
                Ok(words(&bytes))
            }
            (_, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

type Kind = (&'static str, Option<Mapping>, Option<File>);

fn memfd(name: &'static str, pages: usize, map: bool) -> Result<Kind> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC).context("no memfd")?);
    file.set_len((pages * PAGE) as u64)?;
    let mapping = if map { Some(mapped(&file, pages)?) } else { None };
    Ok((name, mapping, Some(file)))
}

fn mapped(file: &File, pages: usize) -> Result<Mapping> {
    file.set_len((pages * PAGE) as u64)?;
    Mapping::new(Source::File(file.as_fd()), pages).context("cannot map a file of memory")
}

fn bytes(content: &Page) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    for (place, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(content) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn words(bytes: &[u8; PAGE]) -> Page {
    let mut content = [0; WORDS];
    for (word, place) in content.iter_mut().zip(bytes.chunks_exact(size_of::<u64>())) {
        *word = u64::from_ne_bytes(place.try_into().unwrap_or_default());
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_same_as_bytes_and_as_words() {
        let content = page(1);
        assert_eq!(words(&bytes(&content)), content);
    }
}
