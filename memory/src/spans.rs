//! Sets of addresses: sorted, disjoint spans that do not touch.

use crate::Span;

/// Sorted and disjoint; neighbours are joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    pub(crate) fn one(span: Span) -> Self {
        let mut spans = Self::default();
        spans.append(span);
        spans
    }

    /// From spans in any order, overlapping or not.
    pub(crate) fn from_unsorted(mut spans: Vec<Span>) -> Self {
        spans.sort_unstable_by_key(|span| span.start);
        spans.into_iter().collect()
    }

    /// Adds what begins no earlier than the last span.
    pub(crate) fn append(&mut self, span: Span) {
        if span.start >= span.end {
            return;
        }
        match self.0.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => self.0.push(span),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn into_vec(self) -> Vec<Span> {
        self.0
    }

    /// Bytes.
    pub(crate) fn length(&self) -> u64 {
        self.0.iter().map(|span| span.end - span.start).sum()
    }

    pub(crate) fn covers(&self, span: Span) -> bool {
        let after = self.0.partition_point(|held| held.start <= span.start);
        after > 0 && self.0[after - 1].end >= span.end
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        let mut all = Self::default();
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.start <= b.start => left.next(),
                (_, Some(_)) => right.next(),
                _ => left.next(),
            };
            match next {
                Some(span) => all.append(span),
                None => return all,
            }
        }
    }

    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        let mut cuts = other.0.iter().peekable();
        for span in self.iter() {
            let mut start = span.start;
            while cuts.next_if(|cut| cut.end <= start).is_some() {}
            while let Some(cut) = cuts.peek().filter(|cut| cut.start < span.end) {
                rest.append(Span { start, end: cut.start });
                start = start.max(cut.end);
                if cut.end > span.end {
                    break; // it cuts into the next one too
                }
                cuts.next();
            }
            rest.append(Span { start, end: span.end });
        }
        rest
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut common = Self::default();
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek().copied(), right.peek().copied()) {
            common.append(Span { start: a.start.max(b.start), end: a.end.min(b.end) });
            if a.end <= b.end {
                left.next();
            } else {
                right.next();
            }
        }
        common
    }
}

/// What is in any of two lists of spans, in any order: sorted and disjoint.
#[must_use]
pub fn union(one: &[Span], other: &[Span]) -> Vec<Span> {
    Spans::from_unsorted([one, other].concat()).into_vec()
}

/// What is in the one and not in the other.
#[must_use]
pub fn without(one: &[Span], other: &[Span]) -> Vec<Span> {
    Spans::from_unsorted(one.to_vec()).without(&Spans::from_unsorted(other.to_vec())).into_vec()
}

/// What is in both.
#[must_use]
pub fn common(one: &[Span], other: &[Span]) -> Vec<Span> {
    Spans::from_unsorted(one.to_vec()).and(&Spans::from_unsorted(other.to_vec())).into_vec()
}

impl FromIterator<Span> for Spans {
    /// From spans in the order of their starts.
    fn from_iter<I: IntoIterator<Item = Span>>(sorted: I) -> Self {
        let mut spans = Self::default();
        for span in sorted {
            spans.append(span);
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(spans: &Spans) -> u32 {
        spans.iter().flat_map(|span| span.start..span.end).fold(0, |bits, at| bits | 1 << at)
    }

    fn spans(bits: u32) -> Spans {
        (0..32).filter(|at| bits & 1 << at != 0).map(|at| Span { start: at, end: at + 1 }).collect()
    }

    #[test]
    fn sets_do_what_bits_do() {
        // A generator of our own, so that a failure comes again.
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u32::try_from(state >> 32).unwrap()
        };
        for _ in 0..5000 {
            let (a, b) = (random() & random(), random() | random());
            for (a, b) in [(a, b), (b, a), (a, a), (0, b), (!0, a)] {
                let (left, right) = (spans(a), spans(b));
                assert_eq!(bits(&left), a);
                assert_eq!(bits(&left.union(&right)), a | b);
                assert_eq!(bits(&left.without(&right)), a & !b);
                assert_eq!(bits(&left.and(&right)), a & b);
                assert_eq!(left.without(&right), spans(a & !b), "neighbours are joined");
                assert_eq!(left.and(&right), spans(a & b));
                assert_eq!(left.length(), u64::from(a.count_ones()));
            }
        }
    }

    #[test]
    fn covering_takes_one_span() {
        let held = spans(0b1111_0110);
        assert!(held.covers(Span { start: 4, end: 8 }));
        assert!(held.covers(Span { start: 5, end: 6 }));
        assert!(!held.covers(Span { start: 2, end: 5 }));
        assert!(!held.covers(Span { start: 0, end: 1 }));
    }

    #[test]
    fn the_order_does_not_matter() {
        let span = |start, end| Span { start, end };
        let joined = Spans::from_unsorted(vec![span(5, 7), span(1, 3), span(2, 5)]);
        assert_eq!(joined.into_vec(), [span(1, 7)]);
    }
}
