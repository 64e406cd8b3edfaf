//! What the rounds have told of and not sent: it is owed in the end, but for what several processes share.
//!
//! Owed pages come to each process by itself. One that a child has in common with its parent would come twice and be two from
//! then on, so it is sent before.

use std::collections::BTreeMap;

use fastmig_memory::spans::{common, union, without};
use fastmig_memory::{Content, Mapping, Pages, Process, Span};

/// By process; the rest of what was told of has travelled.
#[derive(Debug, Default)]
pub(super) struct Withheld(BTreeMap<i32, Vec<Span>>);

impl Withheld {
    pub(super) fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// Keeps `pages` back, but for those that children have in common with the process; and gives back what they have by now
    /// of what was kept back earlier. What is to be sent.
    pub(super) fn keep(&mut self, pages: &[Pages], shared: &[Pages]) -> Vec<Pages> {
        for pages in pages {
            let held = self.0.entry(pages.process).or_default();
            *held = union(held, &pages.spans);
        }
        let held = self.0.iter_mut().map(|(process, held)| {
            let of_children = shared.iter().filter(|pages| pages.process == *process);
            let shared = of_children.fold(Vec::new(), |all, pages| union(&all, &pages.spans));
            let spans = common(held, &shared);
            *held = without(held, &spans);
            Pages { process: *process, spans }
        });
        held.filter(|pages| !pages.spans.is_empty()).collect()
    }

    /// It was sent, or is not there any more.
    pub(super) fn forget(&mut self, pages: &[Pages]) {
        for pages in pages {
            if let Some(held) = self.0.get_mut(&pages.process) {
                *held = without(held, &pages.spans);
            }
        }
    }

    /// What is owed of `mappings`.
    pub(super) fn owed(&self, mappings: &[Mapping]) -> Vec<Pages> {
        let owed = self.0.iter().map(|(process, held)| {
            let ours = mappings.iter().filter(|mapping| mapping.process == *process);
            let whole = ours.fold(Vec::new(), |all, mapping| union(&all, &[span(mapping)]));
            Pages { process: *process, spans: common(held, &whole) }
        });
        owed.filter(|pages| !pages.spans.is_empty()).collect()
    }
}

/// What children have in common with their parents, by parent.
pub(super) fn shared_with_children(mappings: &[Mapping], processes: &[Process]) -> Vec<Pages> {
    let shared = mappings.iter().filter_map(|mapping| {
        let Content::Inherited { own, absent } = &mapping.content else { return None };
        let process = processes.iter().find(|process| process.id == mapping.process)?.parent?;
        Some(Pages { process, spans: without(&without(&[span(mapping)], own), absent) })
    });
    shared.collect()
}

fn span(mapping: &Mapping) -> Span {
    Span { start: mapping.start, end: mapping.end }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn page(start: u64, end: u64) -> Span {
        Span { start: start * 4096, end: end * 4096 }
    }

    fn pages(process: i32, spans: &[Span]) -> Pages {
        Pages { process, spans: spans.to_vec() }
    }

    fn mapping(process: i32, span: Span, content: Content) -> Mapping {
        Mapping { process, start: span.start, end: span.end, content }
    }

    #[test]
    fn what_a_child_shares_is_sent_and_the_rest_is_owed() {
        let process = |id, parent| Process { host: id, id, parent };
        let processes = [process(1, None), process(2, Some(1))];
        let whole = page(16, 32);
        let inherited = Content::Inherited { own: vec![page(18, 20)], absent: vec![page(20, 21)] };
        let mappings = [mapping(1, whole, Content::Own), mapping(2, whole, inherited)];
        let mut withheld = Withheld::default();
        assert_eq!(withheld.keep(&[pages(1, &[page(17, 24), page(100, 101)])], &[]), []);
        let shared = shared_with_children(&mappings, &processes);
        let sent = withheld.keep(&[pages(2, &[page(18, 19)])], &shared);
        assert_eq!(sent, [pages(1, &[page(17, 18), page(21, 24)])]);
        assert_eq!(withheld.owed(&mappings), [pages(1, &[page(18, 21)]), pages(2, &[page(18, 19)])]);
        withheld.forget(&[pages(1, &[page(16, 200)]), pages(2, &[page(0, 20)])]);
        assert!(withheld.is_empty() && withheld.owed(&mappings).is_empty());
    }
}
