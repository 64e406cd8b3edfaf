//! Which addresses an image of pages holds, in the order in which they stand in it (`pagemap.proto`).

use crate::message::{fields, messages, number_of};

const PAGE: u64 = 4096;

// pagemap_head
const PAGES_ID: u64 = 1;
// pagemap_entry
const ADDRESS: u64 = 1;
const SHORT_COUNT: u64 = 2;
const FLAGS: u64 = 4;
const COUNT: u64 = 5;
/// `PE_PRESENT`: the pages are in the image.
const PRESENT: u64 = 1 << 2;

/// A stretch of a process's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its first address.
    pub address: u64,
    /// How long it is.
    pub length: u64,
}

/// An image of pages that was left out of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageImage {
    /// CRIU's name of it (`pages-1.img`).
    pub name: String,
    /// The process, as numbered in its pid namespace.
    pub pid: i32,
    /// What it holds, in order.
    pub ranges: Vec<Range>,
}

impl PageImage {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.ranges.iter().map(|range| range.length).sum()
    }
}

/// The process whose memory an image `pagemap-PID.img` describes; nothing for one of shared memory.
pub(crate) fn process_of(name: &str) -> Option<i32> {
    name.strip_prefix("pagemap-")?.strip_suffix(".img")?.parse().ok()
}

/// Reads the content of one; nothing when it is damaged.
pub(crate) fn parse(pid: i32, content: &[u8]) -> Option<PageImage> {
    let messages = messages(content)?;
    let (head, entries) = messages.split_first()?;
    let id = number_of(&fields(head)?, PAGES_ID)?;
    let mut ranges: Vec<Range> = Vec::new();
    for entry in entries {
        let entry = fields(entry)?;
        if number_of(&entry, FLAGS).unwrap_or(PRESENT) & PRESENT == 0 {
            continue;
        }
        let count = number_of(&entry, COUNT).or_else(|| number_of(&entry, SHORT_COUNT))?;
        let length = count.checked_mul(PAGE)?;
        let address = number_of(&entry, ADDRESS)?;
        address.checked_add(length)?;
        ranges.push(Range { address, length });
    }
    Some(PageImage { name: format!("pages-{id}.img"), pid, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{put_number, HEADER};

    fn entry(values: &[(u64, u64)]) -> Vec<u8> {
        let mut message = Vec::new();
        for (number, value) in values {
            put_number(&mut message, number << 3);
            put_number(&mut message, *value);
        }
        [&u32::try_from(message.len()).unwrap().to_le_bytes()[..], &message].concat()
    }

    #[test]
    fn only_what_is_present_counts() {
        let mut image = vec![0; HEADER];
        image.extend(entry(&[(PAGES_ID, 3)]));
        image.extend(entry(&[(ADDRESS, 0x1000), (SHORT_COUNT, 2), (FLAGS, PRESENT)]));
        image.extend(entry(&[(ADDRESS, 0x9000), (SHORT_COUNT, 7), (FLAGS, 2)]));
        image.extend(entry(&[(ADDRESS, 0xa000), (SHORT_COUNT, 1), (FLAGS, PRESENT), (COUNT, 5)]));
        let found = parse(1001, &image).unwrap();
        assert_eq!(found.name, "pages-3.img");
        let ranges = [Range { address: 0x1000, length: 0x2000 }, Range { address: 0xa000, length: 0x5000 }];
        assert_eq!(found.ranges, ranges);
        assert_eq!(found.size(), 0x7000);
        assert!(parse(1, &image[..image.len() - 1]).is_none());
        let mut wild = image;
        wild.extend(entry(&[(ADDRESS, u64::MAX), (SHORT_COUNT, 9), (FLAGS, PRESENT)]));
        assert!(parse(1, &wild).is_none());
    }

    #[test]
    fn shared_memory_is_no_process() {
        assert_eq!(process_of("pagemap-1001.img"), Some(1001));
        assert_eq!(process_of("pagemap-shmem-7.img"), None);
        assert_eq!(process_of("pages-1.img"), None);
    }
}
