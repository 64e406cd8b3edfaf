//! What an address space misses: ranges, each with whose content it is and from where on.

use std::collections::BTreeMap;

use crate::Span;

/// Where the content of a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The process that had it.
    pub(super) of: i32,
    /// Its address there.
    pub(super) address: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    end: u64,
    place: Place,
}

/// By their starts; disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Missing(BTreeMap<u64, Range>);

impl Missing {
    pub(super) fn new(spans: impl Iterator<Item = (Span, i32)>) -> Self {
        let mut missing = Self::default();
        for (span, of) in spans {
            missing.remove(span);
            missing.put(span, Place { of, address: span.start });
        }
        missing
    }

    fn put(&mut self, span: Span, place: Place) {
        if span.start < span.end {
            self.0.insert(span.start, Range { end: span.end, place });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.0.iter().map(|(start, range)| Span { start: *start, end: range.end }).collect()
    }

    /// Whether anything within is missing.
    pub(super) fn touches(&self, span: Span) -> bool {
        self.0.range(..span.end).next_back().is_some_and(|(_, range)| range.end > span.start)
    }

    /// What is missing at `address`, of at most so many bytes from there on.
    pub(super) fn at(&self, address: u64, most: u64) -> Option<(Span, Place)> {
        let (start, range) = self.0.range(..=address).next_back()?;
        (range.end > address).then(|| cut(*start, range, Span { start: address, end: address + most }))
    }

    /// The first that is missing from `address` on, of at most so many bytes.
    pub(super) fn from(&self, address: u64, most: u64) -> Option<(Span, Place)> {
        self.at(address, most).or_else(|| {
            let (start, range) = self.0.range(address..).next()?;
            Some(cut(*start, range, Span { start: *start, end: *start + most }))
        })
    }

    /// A range is here, or was given up.
    pub(super) fn remove(&mut self, span: Span) {
        drop(self.take(span));
    }

    /// Takes out what is missing of a range.
    fn take(&mut self, span: Span) -> Vec<(Span, Place)> {
        let mut taken = Vec::new();
        let first = self.0.range(..=span.start).next_back().map_or(span.start, |(start, _)| *start);
        let within: Vec<u64> = self.0.range(first..span.end.max(first)).map(|(start, _)| *start).collect();
        for start in within {
            let Some(range) = self.0.get(&start).copied().filter(|range| range.end > span.start) else {
                continue;
            };
            self.0.remove(&start);
            self.put_cut(start, &range, Span { start, end: span.start });
            self.put_cut(start, &range, Span { start: span.end, end: range.end });
            taken.push(cut(start, &range, span));
        }
        taken
    }

    fn put_cut(&mut self, start: u64, range: &Range, part: Span) {
        if part.start < part.end {
            let (span, place) = cut(start, range, part);
            self.put(span, place);
        }
    }

    /// A range was moved; what was missing at its new place is not any more.
    pub(super) fn move_to(&mut self, from: u64, to: u64, length: u64) {
        let moved = self.take(Span { start: from, end: from.saturating_add(length) });
        self.remove(Span { start: to, end: to.saturating_add(length) });
        for (span, place) in moved {
            let start = to.wrapping_add(span.start - from);
            self.put(Span { start, end: start + (span.end - span.start) }, place);
        }
    }
}

/// The part of a range that lies within `span`.
fn cut(start: u64, range: &Range, span: Span) -> (Span, Place) {
    let from = start.max(span.start);
    let place = Place { address: range.place.address + (from - start), ..range.place };
    (Span { start: from, end: range.end.min(span.end) }, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    /// Whose and what each address misses.
    fn told(missing: &Missing) -> Vec<Option<u64>> {
        (0..64).map(|address| missing.at(address, 1).map(|(_, place)| place.address)).collect()
    }

    #[test]
    fn ranges_are_cut_moved_and_forgotten_as_single_addresses_are() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) % below
        };
        for _ in 0..3000 {
            let mut missing = Missing::new([(span(4, 30), 1), (span(40, 50), 1)].into_iter());
            let mut wanted = told(&missing);
            for _ in 0..6 {
                let (from, to, length) = (random(48), random(48), random(16));
                if random(2) == 0 {
                    missing.remove(span(from, from + length));
                    (from..from + length).for_each(|at| wanted[usize::try_from(at).unwrap()] = None);
                } else if from + length <= to || to + length <= from {
                    missing.move_to(from, to, length);
                    for step in 0..length {
                        let moved = wanted[usize::try_from(from + step).unwrap()].take();
                        wanted[usize::try_from(to + step).unwrap()] = moved;
                    }
                }
                assert_eq!(told(&missing), wanted);
            }
            let any = wanted.iter().any(Option::is_some);
            assert_eq!(missing.is_empty(), !any);
            assert_eq!(missing.touches(span(0, 64)), any);
            let first = missing.from(0, 64).map(|(found, _)| usize::try_from(found.start).unwrap());
            assert_eq!(first, wanted.iter().position(Option::is_some));
        }
    }

    #[test]
    fn the_one_inherited_from_is_known() {
        let missing = Missing::new([(span(0x1000, 0x9000), 7)].into_iter());
        let found = missing.at(0x3000, 0x2000).unwrap();
        assert_eq!(found, (span(0x3000, 0x5000), Place { of: 7, address: 0x3000 }));
        assert_eq!(missing.at(0x9000, 1), None);
        assert_eq!(missing.from(0x9000, 1), None);
        assert!(!missing.touches(span(0x9000, 0xa000)) && missing.touches(span(0x8000, 0xa000)));
    }
}
