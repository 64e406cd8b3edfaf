//! What is in a page: words that look random, and that whoever knows what the page is can say again.

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Pages of a mebibyte.
pub(crate) const PAGES_PER_MIB: usize = (1 << 20) / PAGE;

/// Words of a page.
pub(crate) const WORDS: usize = PAGE / size_of::<u64>();

/// The content of a page.
pub(crate) type Page = [u64; WORDS];

/// The content that belongs to `seed`. It is not compressible.
pub(crate) fn page(seed: u64) -> Page {
    let mut state = mix(seed);
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(state)
    })
}

/// The page that nobody has written.
pub(crate) const ZEROS: Page = [0; WORDS];

/// One number out of several, so that none of them can be exchanged unnoticed.
pub(crate) fn seed(parts: [u64; 3]) -> u64 {
    parts.iter().fold(0, |seed, part| mix(seed ^ part).wrapping_add(*part))
}

/// `splitmix64`'s last step.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Numbers that look random, and come again for the same seed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed.wrapping_add(0x5851_f42d_4c95_7f2d)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `limit`; 0 when there is none.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let number = usize::try_from(self.next() >> 1).unwrap_or(0);
        number.checked_rem(limit).unwrap_or(0)
    }

    /// A part of `0..length` that is not empty, unless the whole is.
    pub(crate) fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        let count = 1 + self.below(length - start);
        start..(start + count).min(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_different_seeds_differ_in_every_word_that_matters() {
        let (one, other) = (page(seed([1, 2, 3])), page(seed([1, 2, 4])));
        assert!(one.iter().zip(other).filter(|(a, b)| **a == *b).count() < 2);
        assert_eq!(one, page(seed([1, 2, 3])));
        assert_ne!(seed([1, 2, 3]), seed([2, 1, 3]));
    }

    #[test]
    fn a_part_lies_inside_and_is_not_empty() {
        let mut random = Random::new(7);
        for length in 1..200 {
            let part = random.part(length);
            assert!(!part.is_empty() && part.end <= length, "{part:?} of {length}");
        }
    }
}
