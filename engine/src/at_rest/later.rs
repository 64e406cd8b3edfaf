//! What of a checkpoint's memory can follow an application that runs already.

use fastmig_memory::spans::{common, union, without};
use fastmig_memory::Span;

use super::map::Map;
use crate::migration::plan::{Mapping, Pages};

/// All pages of a checkpoint, by when they must be there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) before: Vec<Pages>,
    pub(super) after: Vec<Pages>,
}

impl Split {
    /// All of it before the application runs.
    pub(super) fn nothing_later(map: &Map) -> Self {
        Self { before: map.pages(), after: Vec::new() }
    }

    /// As much as can be later. Not memory that several processes share: nobody is told who misses a page of it. And not what
    /// a child has in common with its parent: it would come to both, and be two pages from then on.
    pub(super) fn most_later(map: &Map) -> Self {
        let inherited = inherited(map.plan.mappings.as_deref().unwrap_or_default());
        let mut split = Self::default();
        for pages in map.pages() {
            if pages.is_shared() {
                split.before.push(pages);
                continue;
            }
            let all: Vec<Span> = spans(&pages);
            split.before.extend(some(pages.process, &common(&all, &inherited)));
            split.after.extend(some(pages.process, &without(&all, &inherited)));
        }
        split
    }
}

/// Where some process has what its parent has. Few of the others have anything there that is their own.
fn inherited(mappings: &[Mapping]) -> Vec<Span> {
    let of = |mapping: &Mapping| {
        let (own, absent) = mapping.inherited.as_ref()?;
        let whole = [Span { start: mapping.start, end: mapping.end }];
        Some(without(&without(&whole, &spans(own)), &spans(absent)))
    };
    mappings.iter().filter_map(of).fold(Vec::new(), |all, spans| union(&all, &spans))
}

fn spans(pages: &Pages) -> Vec<Span> {
    pages.spans().map(|span| Span { start: span.start, end: span.end }).collect()
}

fn some(process: i32, spans: &[Span]) -> Option<Pages> {
    (!spans.is_empty()).then(|| Pages::new(process, spans.iter().map(|span| span.start..span.end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::at_rest::map::{Places, Run};
    use crate::migration::plan::Plan;

    fn pages(process: i32, first: u64, last: u64) -> Pages {
        Pages::new(process, std::iter::once(first * 4096..last * 4096))
    }

    fn mapping(process: i32, inherited: Option<(Pages, Pages)>) -> Mapping {
        Mapping { process, start: 16 * 4096, end: 32 * 4096, inherited }
    }

    #[test]
    fn what_a_child_has_from_its_parent_and_what_is_shared_is_there_before() {
        let of_child = (pages(2, 18, 20), pages(2, 24, 32));
        let plan = Plan {
            number: 1,
            areas: Vec::new(),
            pages: Vec::new(),
            forgotten: Vec::new(),
            owed: Vec::new(),
            mappings: Some(vec![mapping(1, None), mapping(2, Some(of_child))]),
            shared: Vec::new(),
        };
        let run = |page, count, index| vec![Run { page, count, file: 0, index }];
        let places = Places::from([(-1, run(0, 4, 0)), (1, run(16, 16, 4)), (2, run(18, 2, 20))]);
        let map = Map { files: vec![1], plan, places };
        let split = Split::most_later(&map);
        let parents = Pages::new(1, [16 * 4096..18 * 4096, 20 * 4096..24 * 4096]);
        assert_eq!(split.before, [pages(-1, 0, 4), parents]);
        let rest = Pages::new(1, [18 * 4096..20 * 4096, 24 * 4096..32 * 4096]);
        assert_eq!(split.after, [rest, pages(2, 18, 20)]);
        assert_eq!(Split::nothing_later(&map).after, []);
    }
}
