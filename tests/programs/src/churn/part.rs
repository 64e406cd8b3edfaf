//! What one thread does to its memory: a step at a time, each at random.

use std::io;

use nix::sys::mman::ProtFlags;
use serde_json::{json, Value};

use super::maps::Protections;
use super::region::{is_want, Region};
use crate::pattern::{Random, PAGES_PER_MIB};

/// Regions of a part at most, and pages of a new one.
const REGIONS: usize = 24;
const LARGEST: usize = 6 * PAGES_PER_MIB;
const USUAL: usize = PAGES_PER_MIB / 2;

/// Pages written in one step, at most.
const WRITTEN: usize = 64;

/// The memory of one thread.
#[derive(Debug)]
pub(super) struct Part {
    random: Random,
    regions: Vec<Region>,
    /// Pages that it may have.
    budget: usize,
    /// The number of its last write: no other write of any thread has it.
    last_write: u64,
    /// What went wrong already.
    fault: Option<String>,
}

impl Part {
    /// An empty part, whose writes are numbered apart from those of other `family`s.
    pub(super) fn new(seed: u64, family: u64, budget: usize) -> Self {
        Self { random: Random::new(seed), regions: Vec::new(), budget, last_write: family << 40, fault: None }
    }

    /// Goes on otherwise than whom it was copied from, and writes other content.
    pub(super) fn depart(&mut self, seed: u64, family: u64) {
        self.random = Random::new(seed);
        self.last_write = family << 40;
    }

    fn pages(&self) -> usize {
        self.regions.iter().map(Region::pages).sum()
    }

    /// Does something.
    pub(super) fn step(&mut self) {
        let done = match self.random.below(100) {
            0..12 => self.map(),
            12..60 => self.write(),
            60..67 => self.grow(),
            67..73 => self.shift(),
            73..81 => self.unmap(),
            81..90 => self.protect(),
            _ => self.discard(),
        };
        match done {
            Err(error) if !is_want(&error) && self.fault.is_none() => self.fault = Some(error.to_string()),
            _ => {}
        }
    }

    fn map(&mut self) -> io::Result<()> {
        let largest = if self.random.below(16) == 0 { LARGEST } else { USUAL };
        let pages = 1 + self.random.below(largest);
        if self.regions.len() == REGIONS || self.pages() + pages > self.budget {
            return self.unmap();
        }
        self.regions.push(Region::new(pages)?);
        self.write_in(self.regions.len() - 1);
        Ok(())
    }

    /// One of the regions.
    fn any(&mut self) -> Option<usize> {
        (!self.regions.is_empty()).then(|| self.random.below(self.regions.len()))
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(index) = self.any() {
            self.write_in(index);
        }
        Ok(())
    }

    fn write_in(&mut self, index: usize) {
        let region = &mut self.regions[index];
        let mut pages = self.random.part(region.pages());
        pages.end = pages.end.min(pages.start + WRITTEN);
        region.write(pages, || {
            self.last_write += 1;
            self.last_write
        });
    }

    fn grow(&mut self) -> io::Result<()> {
        let Some(index) = self.any() else { return Ok(()) };
        let more = 1 + self.random.below(USUAL);
        if self.pages() + more > self.budget {
            return self.unmap();
        }
        let pages = self.regions[index].pages() + more;
        match self.regions[index].grow(pages)? {
            true => Ok(()),
            false => self.cut(index),
        }
    }

    fn shift(&mut self) -> io::Result<()> {
        let Some(index) = self.any() else { return Ok(()) };
        match self.regions[index].shift()? {
            true => Ok(()),
            false => self.cut(index),
        }
    }

    /// What the kernel has in several mappings becomes several regions, sooner or later.
    fn cut(&mut self, index: usize) -> io::Result<()> {
        let pages = self.regions[index].pages();
        if pages > 1 && self.regions.len() < 2 * REGIONS {
            let rest = self.regions[index].split_off(1 + self.random.below(pages - 1));
            self.regions.push(rest);
        }
        Ok(())
    }

    fn unmap(&mut self) -> io::Result<()> {
        let Some(index) = self.any() else { return Ok(()) };
        let whole = 0..self.regions[index].pages();
        let pages = if self.random.below(2) == 0 { whole } else { self.random.part(whole.end) };
        let rest = self.regions[index].unmap(&pages);
        self.regions.extend(rest);
        self.regions.retain(|region| region.pages() > 0);
        Ok(())
    }

    fn protect(&mut self) -> io::Result<()> {
        let Some(index) = self.any() else { return Ok(()) };
        let protection = match self.random.below(4) {
            0 => ProtFlags::PROT_NONE,
            1 => ProtFlags::PROT_READ,
            _ => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let pages = self.random.part(self.regions[index].pages());
        self.regions[index].protect(&pages, protection)
    }

    fn discard(&mut self) -> io::Result<()> {
        let Some(index) = self.any() else { return Ok(()) };
        let pages = self.random.part(self.regions[index].pages());
        self.regions[index].discard(&pages)
    }

    /// Looks at all of it. `write_only` are pages that may only be written, by CRIU's fault.
    pub(super) fn check(&self) -> Value {
        let protections = match (&self.fault, Protections::read()) {
            (None, Ok(protections)) => protections,
            (Some(fault), _) => return json!({ "ok": false, "wrong": fault }),
            (None, Err(error)) => return json!({ "ok": false, "wrong": error.to_string() }),
        };
        let wrong = self.regions.iter().find_map(|region| region.wrong(&protections));
        let write_only: usize = self.regions.iter().map(|region| region.write_only(&protections)).sum();
        json!({ "ok": wrong.is_none(), "pages": self.pages(), "write_only": write_only, "wrong": wrong })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_happens_each_page_is_known() {
        for seed in 0..10 {
            let mut part = Part::new(seed, seed, 16 * PAGES_PER_MIB);
            for step in 0..1000 {
                part.step();
                if step % 100 == 0 {
                    let told = part.check();
                    assert_eq!(told["ok"], true, "seed {seed}, step {step}: {told}");
                }
            }
            assert!(part.pages() <= part.budget, "{} pages", part.pages());
        }
    }

    #[test]
    fn a_page_that_nobody_wrote_so_is_wrong() {
        let mut part = Part::new(1, 1, PAGES_PER_MIB);
        part.regions.push(Region::new(8).unwrap());
        part.write_in(0);
        assert_eq!(part.check()["ok"], true);
        part.regions[0].write(3..4, || 7);
        part.regions[0].forget_write(3);
        assert_eq!(part.check()["ok"], false);
    }
}
