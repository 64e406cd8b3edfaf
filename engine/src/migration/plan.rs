//! Where a round of memory belongs, as the source tells the destination: areas, pages, and in the end what they are the
//! content of. It comes from another host: nothing is believed that has not been looked at.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Pages are counted, so that small numbers travel.
pub(crate) const PAGE: u64 = 4096;
/// The end of what a process can map, in pages.
const LAST_PAGE: u64 = 1 << 35;
/// An image of a round is at least as large as this, so that small rounds take one connection.
const SMALLEST_IMAGE: u64 = 8 << 20;
/// The most images of a round.
const IMAGES: u64 = 4;

/// One round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Which, from 1.
    pub(crate) number: u32,
    /// All areas that there are now.
    pub(crate) areas: Vec<Area>,
    /// What the round's content is, in its order.
    pub(crate) pages: Vec<Pages>,
    /// What was sent earlier and is no content any more.
    pub(crate) forgotten: Vec<Pages>,
    /// The last round: what travels when the application runs at the destination. Never shared memory.
    pub(crate) owed: Vec<Pages>,
    /// The last round: which mappings the destination has whole then.
    pub(crate) mappings: Option<Vec<Mapping>>,
    /// All shared memory that there is now; in the last round, what the destination has whole then.
    pub(crate) shared: Vec<SharedArea>,
}

/// See [`fastmig_memory::Area`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Area {
    pub(crate) process: i32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) no_reserve: bool,
    pub(crate) no_huge: bool,
}

/// See [`fastmig_memory::SharedArea`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedArea {
    /// By this, which is below zero, pages are counted as its: as if it were a process, with offsets for addresses.
    pub(crate) holder: i32,
    /// The number by which CRIU counts it.
    pub(crate) id: u64,
    pub(crate) size: u64,
    pub(crate) name: Vec<u8>,
}

/// Pages of one process: how many are left out, and how many follow, from address 0 on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pages {
    pub(crate) process: i32,
    steps: Vec<(u64, u64)>,
}

/// See [`fastmig_memory::Mapping`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mapping {
    pub(crate) process: i32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The process's own pages and those that it lacks, where the rest is its parent's.
    pub(crate) inherited: Option<(Pages, Pages)>,
}

/// Whether pages that are counted as this process's are shared memory's.
pub(super) fn is_holder(process: i32) -> bool {
    process < 0
}

impl Plan {
    /// As it travels.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// Reads one; nothing when it is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let plan: Self = postcard::from_bytes(bytes).ok()?;
        plan.is_valid().then_some(plan)
    }

    /// Whether it speaks of memory that can be.
    pub(crate) fn is_valid(&self) -> bool {
        let inherited = self.mappings.iter().flatten().filter_map(|mapping| mapping.inherited.as_ref());
        let inherited = inherited.flat_map(|(own, absent)| [own, absent]);
        let all = self.pages.iter().chain(&self.forgotten).chain(&self.owed).chain(inherited);
        let owed_in_turn = self.owed.is_empty() || self.mappings.is_some();
        let owed_to_processes = self.owed.iter().all(|pages| !is_holder(pages.process));
        all.into_iter().all(Pages::is_valid) && owed_in_turn && owed_to_processes
    }
}

impl Pages {
    pub(crate) fn new(process: i32, spans: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut steps = Vec::new();
        let mut at = 0;
        for span in spans {
            steps.push(((span.start - at) / PAGE, (span.end - span.start) / PAGE));
            at = span.end;
        }
        Self { process, steps }
    }

    /// Addresses, ascending and disjoint.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.steps.iter().scan(0, |at, (gap, length)| {
            let start = *at + gap * PAGE;
            *at = start + length * PAGE;
            Some(start..*at)
        })
    }

    /// Whether they are of shared memory, not of a process.
    pub(crate) fn is_shared(&self) -> bool {
        is_holder(self.process)
    }

    fn is_valid(&self) -> bool {
        let sum = self.steps.iter().try_fold(0_u64, |sum, (gap, length)| {
            let sum = sum.checked_add(*gap)?.checked_add(*length)?;
            (*length > 0 && sum <= LAST_PAGE).then_some(sum)
        });
        sum.is_some()
    }
}

/// The content of a round, cut into images that can be read and written at the same time.
#[derive(Debug)]
pub(crate) struct Layout {
    number: u32,
    runs: Vec<Run>,
    size: u64,
}

/// Memory that lies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where it begins in the round's content.
    at: u64,
    pub(crate) process: i32,
    pub(crate) address: u64,
    pub(crate) length: u64,
}

impl Run {
    /// Whole blocks, aligned in the process.
    fn blocks(self, bytes: u64, share: u64) -> impl Iterator<Item = Block> {
        let first = self.address.next_multiple_of(bytes);
        let end = self.address + self.length;
        let starts = std::iter::successors(Some(first), move |start| Some(start + bytes));
        let whole = starts.take_while(move |start| start + bytes <= end);
        whole.map(move |address| {
            let offset = (self.at + (address - self.address)) % share;
            Block { offset, process: self.process, address }
        })
    }
}

/// A block of a process that a round brings as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it begins in its image.
    pub(crate) offset: u64,
    pub(crate) process: i32,
    pub(crate) address: u64,
}

impl Layout {
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut runs = Vec::new();
        let mut size = 0;
        for pages in &plan.pages {
            for span in pages.spans() {
                let length = span.end - span.start;
                runs.push(Run { at: size, process: pages.process, address: span.start, length });
                size += length;
            }
        }
        Self { number: plan.number, runs, size }
    }

    /// Bytes in each image; the last one may be shorter.
    fn share(&self) -> u64 {
        let count = (self.size / SMALLEST_IMAGE).clamp(1, IMAGES);
        self.size.div_ceil(count).next_multiple_of(PAGE).max(PAGE)
    }

    /// Names and sizes.
    pub(crate) fn images(&self) -> Vec<(String, u64)> {
        let share = self.share();
        let count = self.size.div_ceil(share);
        let image = |index| (self.name(index), share.min(self.size - index * share));
        (0..count).map(image).collect()
    }

    fn name(&self, index: u64) -> String {
        format!("memory-{}-{index}", self.number)
    }

    /// The blocks of so many bytes that the round brings as a whole, in the order in which they come: the images come side by
    /// side.
    pub(crate) fn whole_blocks(&self, bytes: u64) -> Vec<Block> {
        let of_processes = self.runs.iter().filter(|run| !is_holder(run.process));
        let mut blocks: Vec<_> = of_processes.flat_map(|run| run.blocks(bytes, self.share())).collect();
        blocks.sort_by_key(|block| block.offset);
        blocks
    }

    /// Where a part of an image belongs; nothing when there is none such.
    pub(crate) fn runs(&self, image: &str, offset: u64, length: u64) -> Option<Vec<Run>> {
        let index = (0..IMAGES).find(|index| self.name(*index) == image)?;
        let begin = (index * self.share()).checked_add(offset)?;
        let end = begin.checked_add(length).filter(|end| *end <= self.size)?;
        let first = self.runs.partition_point(|run| run.at + run.length <= begin);
        let cut = |run: &Run| {
            let from = run.at.max(begin);
            let to = (run.at + run.length).min(end);
            Run { at: from, process: run.process, address: run.address + (from - run.at), length: to - from }
        };
        Some(self.runs[first..].iter().take_while(|run| run.at < end).map(cut).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pages: Vec<Pages>) -> Plan {
        Plan { number: 3, pages, ..Plan::default() }
    }

    #[test]
    fn pages_travel_as_small_numbers() {
        let spans = [0x7f00_0000_0000..0x7f00_0000_2000, 0x7f00_0000_3000..0x7f00_0010_0000];
        let plan = plan(vec![Pages::new(7, spans.clone())]);
        let bytes = plan.encode().unwrap();
        assert!(bytes.len() < 24, "{}", bytes.len());
        let read = Plan::decode(&bytes).unwrap();
        assert_eq!(read, plan);
        assert_eq!(read.pages[0].spans().collect::<Vec<_>>(), spans);
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        let far = Pages { process: 1, steps: vec![(u64::MAX, 2)] };
        let beyond = Pages { process: 1, steps: vec![(LAST_PAGE, 1)] };
        let nothing = Pages { process: 1, steps: vec![(1, 0)] };
        for pages in [far, beyond, nothing] {
            let bytes = plan(vec![pages.clone()]).encode().unwrap();
            assert_eq!(Plan::decode(&bytes), None, "{pages:?}");
            let mapping =
                Mapping { process: 1, start: 0, end: PAGE, inherited: Some((Pages::new(1, []), pages)) };
            let bytes = Plan { mappings: Some(vec![mapping]), ..plan(Vec::new()) }.encode().unwrap();
            assert_eq!(Plan::decode(&bytes), None);
        }
        assert_eq!(Plan::decode(&[0xff; 40]), None);
    }

    #[test]
    fn only_processes_are_owed_memory_and_only_in_the_end() {
        let owes = |process, mappings| {
            let owed = vec![Pages::new(process, std::iter::once(PAGE..2 * PAGE))];
            Plan::decode(&Plan { owed, mappings, ..plan(Vec::new()) }.encode().unwrap())
        };
        assert!(owes(7, Some(Vec::new())).is_some());
        assert_eq!(owes(-1, Some(Vec::new())), None);
        assert_eq!(owes(7, None), None);
    }

    #[test]
    fn whole_blocks_are_in_the_order_in_which_they_come() {
        const MIB: u64 = 1 << 20;
        let of_process = Pages::new(1, [MIB..6 * MIB, 8 * MIB..10 * MIB, 12 * MIB..23 * MIB]);
        let shared = Pages::new(-1, std::iter::once(0..32 * MIB));
        let layout = Layout::of(&plan(vec![of_process, shared]));
        assert_eq!(layout.images().len(), 4, "of 12.5 MiB each");
        let blocks = layout.whole_blocks(2 * MIB);
        // At 1, 3, 5, 7, 9 and 11 MiB of the first image, and the last two at 0.5 and 2.5 of the second.
        let wanted = [(1, 18), (2, 2), (5, 20), (6, 4), (10, 8), (14, 12), (18, 14), (22, 16)];
        let block = |(half, mib)| Block { offset: half * MIB / 2, process: 1, address: mib * MIB };
        assert_eq!(blocks, wanted.map(block));
    }

    #[test]
    fn every_byte_of_a_round_is_in_one_image_at_its_address() {
        const MIB: u64 = 1 << 20;
        let spans = [16 * MIB..27 * MIB, 30 * MIB..30 * MIB + PAGE, 64 * MIB..80 * MIB];
        let layout = Layout::of(&plan(vec![
            Pages::new(1, spans.clone()),
            Pages::new(2, std::iter::once(PAGE..2 * PAGE)),
        ]));
        let images = layout.images();
        assert!(
            images.len() == 3 && images.iter().all(|(name, _)| name.starts_with("memory-3-")),
            "{images:?}"
        );
        let mut seen = Vec::new();
        for (name, size) in &images {
            for offset in (0..*size).step_by(1 << 20) {
                seen.extend(layout.runs(name, offset, (size - offset).min(MIB)).unwrap());
            }
            assert_eq!(layout.runs(name, *size, layout.size), None);
        }
        let total: u64 = seen.iter().map(|run| run.length).sum();
        assert_eq!(total, layout.size);
        let wanted = spans.iter().map(|span| (1, span.clone())).chain([(2, PAGE..2 * PAGE)]);
        for (process, span) in wanted {
            let inside = |run: &&Run| run.process == process && span.contains(&run.address);
            assert_eq!(seen.iter().filter(inside).map(|run| run.length).sum::<u64>(), span.end - span.start);
        }
        assert_eq!(layout.runs("memory-2-0", 0, 1), None);
    }
}
