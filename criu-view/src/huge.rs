//! Huge pages in areas: of what has arrived, and of what is about to.

use core::ffi::c_int;

use fastmig_criu_view_layout::{area, AREAS, HUGE, RANGES};

use crate::areas::{self, HUGE_BYTES};
use crate::memory::{self, PageMap};
use crate::table;

/// Blocks that one command looks at, and of those how many it makes huge, as far as there is memory: a command is to be short.
const BLOCKS_SEEN: u32 = 4096;
const BLOCKS_MADE: u32 = 32;

/// Makes whole blocks of the first `count` ranges huge while they are empty: filled first, each would be cleared twice, and
/// copied. Where there is no memory in one piece they stay as they are. Answers an error number, or 0.
pub(crate) fn prepare(count: u64) -> c_int {
    let Some(table) = table::get() else { return libc::EINVAL };
    let mut run = Run::default();
    for index in 0..count {
        let range = table.entry(RANGES, index).map(|span| (span.get(0), span.get(1), span.get(2)));
        let Some((process, start, end)) = range else { return libc::EINVAL };
        let Some(area) = table.at_or_below(AREAS, process, start) else { return libc::EINVAL };
        let Some(place) = areas::find(table, process, start, end) else { return libc::EINVAL };
        if area.get(area::FLAGS) & area::NO_HUGE != 0 {
            continue;
        }
        let first = areas::length(start, start.next_multiple_of(HUGE));
        for block in (first..areas::length(start, end)).step_by(HUGE_BYTES) {
            if block + HUGE_BYTES <= areas::length(start, end) {
                let block = place.wrapping_add(block);
                // The kernel makes a huge page of what has at least one page. What has come already stays.
                if memory::populate(block, 1) {
                    run.add(block);
                }
            }
        }
    }
    run.collapse();
    0
}

/// Makes huge pages of blocks without a hole, from an area and a distance into it on; answers where to go on.
pub(crate) fn collapse(mut index: u64, mut offset: u64) -> (u64, u64) {
    let Some((table, mut pages)) = table::get().zip(PageMap::open()) else { return (u64::MAX, 0) };
    let (mut seen, mut made, mut run) = (0, 0, Run::default());
    while index < table.count(AREAS) {
        let Some(area) = table.entry(AREAS, index) else { break };
        let (start, end) = (area.get(area::START), area.get(area::END));
        let allowed = area.get(area::FLAGS) & area::NO_HUGE == 0;
        let block = start.saturating_add(offset).next_multiple_of(HUGE);
        let block_end = block.saturating_add(HUGE);
        if !allowed || block_end > end {
            (index, offset) = (index + 1, 0);
            continue;
        }
        if seen == BLOCKS_SEEN || made == BLOCKS_MADE {
            run.collapse();
            return (index, offset);
        }
        seen += 1;
        offset = block_end - start;
        let place = areas::location(area, block);
        let full = pages.populated(place, 512).is_some_and(|mut pages| pages.all(|populated| populated));
        if full {
            run.add(place);
            made += 1;
        }
    }
    run.collapse();
    (u64::MAX, 0)
}

/// Blocks that follow each other. Most of what the kernel takes for one of them it takes for any number at once.
#[derive(Default)]
struct Run {
    place: usize,
    length: usize,
}

impl Run {
    fn add(&mut self, place: usize) {
        if place != self.place.wrapping_add(self.length) {
            self.collapse();
            *self = Self { place, length: 0 };
        }
        self.length += HUGE_BYTES;
    }

    fn collapse(&mut self) {
        if self.length > 0 {
            memory::collapse(self.place, self.length);
        }
        self.length = 0;
    }
}
