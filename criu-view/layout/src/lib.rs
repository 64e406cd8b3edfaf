//! The memory that the engine shares with the library which CRIU is started under (`criu-view`): where what lies.
//!
//! All of it is 64-bit words in a memfd of a fixed size, which costs only what is written. The engine reads and writes
//! the file, the library has it mapped.

#![no_std]

/// The environment variable that names the descriptors: `TABLE` alone for a dump, `TABLE,SOCKET,RPC` for a restore.
pub const VARIABLE: &str = "FASTMIG_VIEW";

/// The first word of a table; changes with its form.
pub const MAGIC: u64 = 0x4641_5354_4d56_0001;

/// What a process number looks like in a word.
#[must_use]
pub const fn process_word(process: i32) -> u64 {
    u32::from_ne_bytes(process.to_ne_bytes()) as u64
}

/// Some entries of the same form, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// The word at which it begins.
    pub at: u64,
    /// How many entries there is room for.
    pub entries: u64,
    /// Words in an entry.
    pub words: u64,
    /// The word in which the number of entries stands.
    pub count: u64,
}

impl Region {
    const fn after(previous: Self, count: u64, entries: u64, words: u64) -> Self {
        Self { at: previous.end(), entries, words, count }
    }

    const fn end(self) -> u64 {
        self.at + self.entries * self.words
    }

    /// The word at which entry `index` begins; nothing when there is no room for it.
    #[must_use]
    pub const fn entry(self, index: u64) -> Option<u64> {
        if index < self.entries {
            Some(self.at + index * self.words)
        } else {
            None
        }
    }
}

/// The word with [`MAGIC`]; the counts of the regions follow.
pub const HEADER: Region = Region { at: 0, entries: 1, words: 512, count: 0 };

/// Dump: mappings whose content CRIU shall not see, by process and address ([`hidden`]).
pub const HIDDEN: Region = Region::after(HEADER, 1, 1 << 17, 4);
/// Dump: files of shared memory whose content CRIU shall not see ([`shared`]).
pub const SHARED: Region = Region::after(HIDDEN, 2, 1 << 12, 3);
/// Dump: for a process, its reduced smaps in [`TEXT`] ([`smaps`]), by process.
pub const SMAPS: Region = Region::after(SHARED, 3, 1 << 16, 4);
/// Restore: the areas that the engine wants, by process and address; without their locations ([`area`]).
pub const WANTED: Region = Region::after(SMAPS, 4, 1 << 17, area::WORDS);
/// Restore: the areas that there are, by process and address ([`area`]); the library writes them.
pub const AREAS: Region = Region::after(WANTED, 5, 1 << 17, area::WORDS);
/// Restore: what becomes of the mappings of the restored processes, by process and address ([`mapping`]).
pub const MAPPINGS: Region = Region::after(AREAS, 6, 1 << 17, mapping::WORDS);
/// Restore: spans that mappings point to: process, start, end.
pub const SPANS: Region = Region::after(MAPPINGS, 7, 1 << 22, 3);
/// Restore: segments of shared memory ([`segment`]).
pub const SEGMENTS: Region = Region::after(SPANS, 8, 1 << 12, segment::WORDS);
/// Restore: where CRIU's own reservation shall lie, modulo [`HUGE`]: process, remainder.
pub const REMAINDERS: Region = Region::after(SEGMENTS, 9, 1 << 16, 2);
/// Restore: the process tree: process, parent; by process. Without it, every process inherits all areas for a while.
pub const FAMILY: Region = Region::after(REMAINDERS, 11, 1 << 16, 2);
/// Restore: the ranges of a command: process, start, end.
pub const RANGES: Region = Region::after(FAMILY, 12, 1 << 16, 3);
/// Dump: text, eight bytes in a word.
pub const TEXT: Region = Region::after(RANGES, 10, 1 << 24, 1);

/// The size of a table in bytes.
pub const SIZE: u64 = TEXT.end() * 8;

/// The size of a huge page.
pub const HUGE: u64 = 2 << 20;

/// The words of an entry of [`HIDDEN`].
pub mod hidden {
    /// The process, as CRIU numbers it.
    pub const PROCESS: u64 = 0;
    /// The first address.
    pub const START: u64 = 1;
    /// The first address after it.
    pub const END: u64 = 2;
    /// Up to where CRIU has asked for it, from its start on without a gap; set by the library.
    pub const COVERED: u64 = 3;
}

/// The words of an entry of [`SHARED`].
pub mod shared {
    /// The device of the file's file system.
    pub const DEVICE: u64 = 0;
    /// The file's inode.
    pub const INODE: u64 = 1;
    /// How often CRIU has asked for its content; set by the library.
    pub const ASKED: u64 = 2;
}

/// The words of an entry of [`SMAPS`].
pub mod smaps {
    /// The process, as CRIU numbers it.
    pub const PROCESS: u64 = 0;
    /// The byte of the text region at which its text begins.
    pub const OFFSET: u64 = 1;
    /// The length of the text in bytes.
    pub const LENGTH: u64 = 2;
    /// How often it was shown instead of the kernel's; set by the library.
    pub const SHOWN: u64 = 3;
}

/// The words of an entry of [`WANTED`] and [`AREAS`].
pub mod area {
    /// How many there are.
    pub const WORDS: u64 = 5;
    /// The process whose memory it holds.
    pub const PROCESS: u64 = 0;
    /// The first address there.
    pub const START: u64 = 1;
    /// The first address after it.
    pub const END: u64 = 2;
    /// [`NO_RESERVE`] and [`NO_HUGE`].
    pub const FLAGS: u64 = 3;
    /// Where it lies in CRIU's own memory.
    pub const LOCATION: u64 = 4;
    /// The mapping does not count against the limit on memory that is promised (`MAP_NORESERVE`).
    pub const NO_RESERVE: u64 = 1;
    /// No huge pages are made in it.
    pub const NO_HUGE: u64 = 2;
}

/// The words of an entry of [`MAPPINGS`].
pub mod mapping {
    /// How many there are.
    pub const WORDS: u64 = 9;
    /// The process.
    pub const PROCESS: u64 = 0;
    /// The first address, which is also the offset that CRIU maps it with.
    pub const START: u64 = 1;
    /// The first address after it.
    pub const END: u64 = 2;
    /// [`OWN`] or [`INHERITED`].
    pub const KIND: u64 = 3;
    /// The first span with content of its own (inherited mappings).
    pub const OWN_FIRST: u64 = 4;
    /// How many there are.
    pub const OWN_COUNT: u64 = 5;
    /// The first span without any content (inherited mappings).
    pub const ABSENT_FIRST: u64 = 6;
    /// How many there are.
    pub const ABSENT_COUNT: u64 = 7;
    /// How often it was taken, or [`FAILED`]; set by the library.
    pub const TAKEN: u64 = 8;
    /// All content is the process's own.
    pub const OWN: u64 = 0;
    /// The content is the parent's, but for spans.
    pub const INHERITED: u64 = 1;
    /// CRIU asked for it in a way that cannot be answered.
    pub const FAILED: u64 = 1 << 32;
}

/// The words of an entry of [`SEGMENTS`].
pub mod segment {
    /// How many there are.
    pub const WORDS: u64 = 5 + NAME_WORDS;
    /// The number in the name of its image, `pagemap-shmem-ID.img`.
    pub const ID: u64 = 0;
    /// Its size in bytes.
    pub const SIZE: u64 = 1;
    /// Where it lies in CRIU's own memory; set by the library, 0 before.
    pub const LOCATION: u64 = 2;
    /// Its descriptor in CRIU's first process; set by the library.
    pub const FD: u64 = 3;
    /// How often CRIU has taken it, or [`FAILED`](super::mapping::FAILED); set by the library.
    pub const TAKEN: u64 = 4;
    /// The name, as of `memfd_create`, filled up with zeros.
    pub const NAME: u64 = 5;
    /// Words of a name.
    pub const NAME_WORDS: u64 = 32;
}

/// Commands, the first word of a message of four; an answer is the error number, or 0, and two more words.
pub mod command {
    /// Words in a message.
    pub const WORDS: usize = 4;
    /// Make the areas as they are wanted, keeping the content of those that overlap.
    pub const LAY_OUT: u64 = 1;
    /// Empty the ranges (word 1: how many).
    pub const DISCARD: u64 = 2;
    /// Make huge pages, from word 1 (area) and word 2 (bytes into it) on; the answer says where to go on, or `u64::MAX`.
    pub const COLLAPSE: u64 = 3;
    /// Make the segments from word 1 on.
    pub const MAKE_SEGMENTS: u64 = 4;
    /// Make huge pages of the ranges (word 1: how many), before they are filled.
    pub const MAKE_HUGE: u64 = 5;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_in_their_region() {
        assert_eq!(HIDDEN.entry(0), Some(512));
        assert_eq!(HIDDEN.entry(HIDDEN.entries), None);
        assert_eq!(SHARED.at, HIDDEN.entry(HIDDEN.entries - 1).unwrap() + HIDDEN.words);
    }
}
