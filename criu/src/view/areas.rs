//! Areas and mappings as the engine wants them, checked: they come from the other host.

use fastmig_criu_view_layout::{area, mapping, process_word, AREAS};

use super::ViewError;

const PAGE: u64 = 4096;

/// The end of what a process can map.
const LAST_ADDRESS: u64 = 1 << 47;

/// Memory of a process that is to be filled before the process is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AreaSpec {
    /// The process, as it will be numbered.
    pub process: i32,
    /// The first address there.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// It does not count against the limit on memory that is promised (`nr` among its flags).
    pub no_reserve: bool,
    /// No huge pages are made in it (`nh` among its flags).
    pub no_huge: bool,
}

/// Addresses, from the first one to the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
}

/// Where the content of a restored mapping comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All from the process's own area.
    Own,
    /// From the parent's mapping, but for spans.
    Inherited {
        /// Those that come from the process's own areas.
        own: Vec<Span>,
        /// Those without content, though the parent's may have some.
        absent: Vec<Span>,
    },
}

/// A private anonymous mapping of a process that is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The process, as it will be numbered.
    pub process: i32,
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// Its content.
    pub content: Content,
}

/// An area that is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) spec: AreaSpec,
    /// Where it lies in CRIU's process.
    pub(super) location: u64,
}

/// Areas in the order of the table; an error when there is too much of them, they overlap or are no memory.
pub(super) fn sorted(areas: &[AreaSpec], most_bytes: u64) -> Result<Vec<AreaSpec>, ViewError> {
    if areas.len() as u64 > AREAS.entries {
        return Err(ViewError::TooMany { what: "areas", count: areas.len() as u64, most: AREAS.entries });
    }
    let mut sorted = areas.to_vec();
    sorted.sort_unstable();
    let mut bytes = 0_u64;
    let mut last = None;
    for area in &sorted {
        let span = Span { start: area.start, end: area.end };
        check(last, "area", area.process, span)?;
        last = Some((area.process, area.end));
        bytes = bytes.saturating_add(area.end - area.start);
    }
    if bytes > most_bytes {
        return Err(ViewError::TooMany { what: "bytes", count: bytes, most: most_bytes });
    }
    Ok(sorted)
}

/// Checks one of several sorted spans against the one before.
fn check(last: Option<(i32, u64)>, what: &'static str, process: i32, span: Span) -> Result<(), ViewError> {
    let Span { start, end } = span;
    let wrong = |why| Err(ViewError::Wrong { what, process, start, end, why });
    if process <= 0 {
        return wrong("there is no such process");
    }
    if start >= end || start % PAGE != 0 || end % PAGE != 0 || start == 0 || end > LAST_ADDRESS {
        return wrong("it is not made of pages");
    }
    if last.is_some_and(|(last, last_end)| last == process && last_end > start) {
        return wrong("it overlaps the one before");
    }
    Ok(())
}

/// The words of areas that are wanted.
pub(super) fn words(areas: &[AreaSpec]) -> Vec<u64> {
    let flags = |a: &AreaSpec| {
        (if a.no_reserve { area::NO_RESERVE } else { 0 }) | (if a.no_huge { area::NO_HUGE } else { 0 })
    };
    areas.iter().flat_map(|a| [process_word(a.process), a.start, a.end, flags(a), 0]).collect()
}

/// The area that holds these addresses of a process.
pub(super) fn find(areas: &[Area], process: i32, span: Span) -> Option<&Area> {
    let after = areas.partition_point(|a| (a.spec.process, a.spec.start) <= (process, span.start));
    let area = areas.get(after.checked_sub(1)?)?;
    (area.spec.process == process && span.start <= span.end && span.end <= area.spec.end).then_some(area)
}

/// The words of mappings, and of the spans that they point to.
pub(super) fn mapping_words(mappings: &[Placed], areas: &[Area]) -> Result<(Vec<u64>, Vec<u64>), ViewError> {
    let mut sorted: Vec<&Placed> = mappings.iter().collect();
    sorted.sort_unstable_by_key(|m| (m.process, m.start));
    let (mut words, mut spans) = (Vec::new(), Vec::new());
    let mut last = None;
    for placed in sorted {
        let whole = Span { start: placed.start, end: placed.end };
        check(last, "mapping", placed.process, whole)?;
        last = Some((placed.process, placed.end));
        let (kind, own, absent): (_, &[Span], &[Span]) = match &placed.content {
            Content::Own => {
                in_area(areas, placed.process, whole)?;
                (mapping::OWN, &[], &[])
            }
            Content::Inherited { own, absent } => (mapping::INHERITED, own, absent),
        };
        let first = spans.len() as u64 / SPAN_WORDS;
        put_spans(&mut spans, placed.process, whole, own)?;
        own.iter().try_for_each(|span| in_area(areas, placed.process, *span))?;
        put_spans(&mut spans, placed.process, whole, absent)?;
        let (own, absent) = (own.len() as u64, absent.len() as u64);
        words.extend([process_word(placed.process), placed.start, placed.end, kind]);
        words.extend([first, own, first + own, absent, 0]);
    }
    Ok((words, spans))
}

pub(super) const SPAN_WORDS: u64 = 3;

fn put_spans(words: &mut Vec<u64>, process: i32, whole: Span, spans: &[Span]) -> Result<(), ViewError> {
    for span in spans {
        check(None, "span", process, *span)?;
        let Span { start, end } = *span;
        if start < whole.start || end > whole.end {
            return Err(ViewError::Wrong { what: "span", process, start, end, why: "it leaves its mapping" });
        }
        words.extend([process_word(process), start, end]);
    }
    Ok(())
}

pub(super) fn in_area(areas: &[Area], process: i32, span: Span) -> Result<(), ViewError> {
    let Span { start, end } = span;
    match find(areas, process, span) {
        Some(_) => Ok(()),
        None => Err(ViewError::Wrong { what: "span", process, start, end, why: "no area holds it" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(process: i32, start: u64, end: u64) -> AreaSpec {
        AreaSpec { process, start, end, no_reserve: false, no_huge: false }
    }

    fn laid_out(process: i32, start: u64, end: u64) -> Area {
        Area { spec: area(process, start, end), location: 0 }
    }

    #[test]
    fn areas_are_sorted_and_bounded() {
        let areas = [area(2, 0x1000, 0x3000), area(1, 0x5000, 0x6000), area(1, 0x1000, 0x5000)];
        let ordered = sorted(&areas, 0x7000).unwrap();
        assert_eq!(ordered, [areas[2], areas[1], areas[0]]);
        assert!(matches!(sorted(&areas, 0x6fff), Err(ViewError::TooMany { what: "bytes", .. })));
    }

    #[test]
    fn areas_that_are_no_memory_are_refused() {
        for wrong in [
            vec![area(0, 0x1000, 0x2000)],
            vec![area(1, 0x2000, 0x1000)],
            vec![area(1, 0x1000, 0x1800)],
            vec![area(1, 0, 0x1000)],
            vec![area(1, 0x1000, !0xfff)],
            vec![area(1, 0x1000, 0x3000), area(1, 0x2000, 0x4000)],
        ] {
            assert!(sorted(&wrong, u64::MAX).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_mapping_must_lie_in_one_area() {
        let areas = [laid_out(1, 0x1000, 0x3000), laid_out(1, 0x3000, 0x5000)];
        let placed = |start, end| Placed { process: 1, start, end, content: Content::Own };
        assert!(mapping_words(&[placed(0x1000, 0x2000), placed(0x3000, 0x5000)], &areas).is_ok());
        assert!(mapping_words(&[placed(0x2000, 0x4000)], &areas).is_err());
        assert!(mapping_words(&[placed(0x1000, 0x3000), placed(0x2000, 0x3000)], &areas).is_err());
    }

    #[test]
    fn own_spans_need_an_area_and_all_stay_in_their_mapping() {
        let areas = [laid_out(1, 0x1000, 0x3000)];
        let inherited = |own: &[(u64, u64)], absent: &[(u64, u64)]| {
            let spans = |s: &[(u64, u64)]| s.iter().map(|&(start, end)| Span { start, end }).collect();
            let content = Content::Inherited { own: spans(own), absent: spans(absent) };
            mapping_words(&[Placed { process: 1, start: 0x1000, end: 0x9000, content }], &areas)
        };
        let (words, spans) = inherited(&[(0x1000, 0x2000)], &[(0x7000, 0x8000), (0x8000, 0x9000)]).unwrap();
        assert_eq!(words, [1, 0x1000, 0x9000, mapping::INHERITED, 0, 1, 1, 2, 0]);
        assert_eq!(spans, [1, 0x1000, 0x2000, 1, 0x7000, 0x8000, 1, 0x8000, 0x9000]);
        assert!(inherited(&[(0x4000, 0x5000)], &[]).is_err());
        assert!(inherited(&[], &[(0x8000, 0xa000)]).is_err());
    }
}
