//! A run of private pages, and what each of them must hold.

use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, ProtFlags};
use serde_json::{json, Value};

use super::maps::Protections;
use crate::pattern::{page, seed, Page, PAGES_PER_MIB, ZEROS};
use crate::sys::{Mapping, Source};

/// What a page must hold, and how it may be used.
#[derive(Debug, Clone, Copy)]
struct State {
    /// Which write it was that left this; 0 is none since it was mapped or discarded.
    write: u64,
    protection: ProtFlags,
}

const ALL: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);
const FRESH: State = State { write: 0, protection: ALL };

/// Pages that lie together. The kernel may have them in several mappings.
#[derive(Debug)]
pub(super) struct Region {
    mapping: Mapping,
    states: Vec<State>,
}

/// The content that a write leaves. It goes with its page, wherever that moves.
fn content(write: u64) -> Page {
    match write {
        0 => ZEROS,
        write => page(seed([write, 0, 0])),
    }
}

impl Region {
    /// New pages; large ones are huge where the kernel has such.
    pub(super) fn new(pages: usize) -> io::Result<Self> {
        let mapping = Mapping::new(Source::Private, pages)?;
        if pages >= 4 * PAGES_PER_MIB {
            // A kernel without huge pages refuses, and is right.
            let _ = mapping.advise(&(0..pages), MmapAdvise::MADV_HUGEPAGE);
        }
        Ok(Self { mapping, states: vec![FRESH; pages] })
    }

    pub(super) fn pages(&self) -> usize {
        self.states.len()
    }

    /// Writes those of these pages that may be written, each with the content of a write of its own.
    pub(super) fn write(&mut self, pages: Range<usize>, mut next: impl FnMut() -> u64) {
        for index in pages {
            if self.states[index].protection.contains(ProtFlags::PROT_WRITE) {
                self.states[index].write = next();
                self.mapping.write(index, &content(self.states[index].write));
            }
        }
    }

    /// Gives pages back to the kernel, which shows zeros in their place.
    pub(super) fn discard(&mut self, pages: &Range<usize>) -> io::Result<()> {
        self.mapping.advise(pages, MmapAdvise::MADV_DONTNEED)?;
        self.states[pages.clone()].iter_mut().for_each(|state| state.write = 0);
        Ok(())
    }

    /// Protects pages.
    pub(super) fn protect(&mut self, pages: &Range<usize>, protection: ProtFlags) -> io::Result<()> {
        self.mapping.protect(pages, protection)?;
        self.states[pages.clone()].iter_mut().for_each(|state| state.protection = protection);
        Ok(())
    }

    /// Takes all protection away. Whether the kernel has it in one mapping then: what it once had in two it may not join.
    fn unite(&mut self) -> io::Result<bool> {
        self.protect(&(0..self.pages()), ALL)?;
        self.mapping.is_one()
    }

    /// Makes it longer, if it can be.
    pub(super) fn grow(&mut self, pages: usize) -> io::Result<bool> {
        let able = self.unite()?;
        if able {
            self.mapping.grow(pages)?;
            self.states.resize(pages, FRESH);
        }
        Ok(able)
    }

    /// Moves it elsewhere, if it can be.
    pub(super) fn shift(&mut self) -> io::Result<bool> {
        let able = self.unite()?;
        if able {
            self.mapping.shift()?;
        }
        Ok(able)
    }

    /// Unmaps some of its pages; answers what was beyond them.
    pub(super) fn unmap(&mut self, pages: &Range<usize>) -> Option<Self> {
        let rest = (pages.end < self.pages()).then(|| self.split_off(pages.end));
        drop(self.split_off(pages.start));
        rest
    }

    /// Cuts it in two, where it lies; neither part may be empty, but the first.
    pub(super) fn split_off(&mut self, page: usize) -> Self {
        Self { mapping: self.mapping.split_off(page), states: self.states.split_off(page) }
    }

    /// The first page that is not as it must be.
    pub(super) fn wrong(&self, protections: &Protections) -> Option<Value> {
        (0..self.pages()).find_map(|index| self.wrong_page(index, protections))
    }

    fn wrong_page(&self, index: usize, protections: &Protections) -> Option<Value> {
        let (state, address) = (self.states[index], self.mapping.address_of(index));
        let told = |what: &str, found: Value| {
            let address = format!("{address:#x}");
            Some(json!({ "address": address, "write": state.write, "what": what, "found": found }))
        };
        let protection = protections.at(address);
        if protection != Some(state.protection) && !is_write_only(state.protection, protection) {
            return told("protection", json!(format!("{protection:?} in place of {:?}", state.protection)));
        }
        match self.look(index) {
            Ok(found) if found == content(state.write) => None,
            Ok(found) => told("content", json!(format!("{:#018x} ...", found[0]))),
            Err(error) => told("content", json!(error.to_string())),
        }
    }

    /// How many pages may be written only, though they must be read too: see [`is_write_only`].
    pub(super) fn write_only(&self, protections: &Protections) -> usize {
        let pages = (0..self.pages()).filter(|&index| {
            is_write_only(self.states[index].protection, protections.at(self.mapping.address_of(index)))
        });
        pages.count()
    }

    /// Loses what was written to a page, as a bad move would.
    #[cfg(test)]
    pub(super) fn forget_write(&self, index: usize) {
        self.mapping.write(index, &ZEROS);
    }

    /// Reads a page, also one that must not be.
    fn look(&self, index: usize) -> io::Result<Page> {
        let (one, protection) = (index..index + 1, self.states[index].protection);
        if protection.contains(ProtFlags::PROT_READ) {
            return Ok(self.mapping.read(index));
        }
        self.mapping.protect(&one, ProtFlags::PROT_READ)?;
        let found = self.mapping.read(index);
        self.mapping.protect(&one, protection)?;
        Ok(found)
    }
}

/// What CRIU 4.2 makes of a child's page where its parent's is protected: it takes the parent's mapping for the child, with
/// write access for itself, and does not look at the protection again. It can be read all the same on x86, and is counted.
fn is_write_only(wanted: ProtFlags, found: Option<ProtFlags>) -> bool {
    wanted == ALL && found == Some(ProtFlags::PROT_WRITE)
}

/// Whether an operation was refused for want of memory or mappings, which is no fault.
pub(super) fn is_want(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOMEM as i32)
}
