//! Pages that a process still has in common with its parent: copied on the first write of either, hence in one frame.

use std::io;

use crate::pagemap::{self, Entry};
use crate::scan::Scanner;
use crate::spans::Spans;
use crate::{parallel, Span, PAGE};

/// Holes smaller than this are read along: a call costs more.
const HOLE: u64 = 2 << 20;

/// Of the pages `populated` in the child, those that are in the same place as the parent's.
///
/// Of running processes, it is what was so while it was read; a page that is taken for shared and is not any more is found
/// the next time.
pub(crate) fn shared(parent: &Scanner, child: &Scanner, populated: &Spans) -> io::Result<Spans> {
    let steps: Vec<Span> = with_small_holes(populated).into_iter().flat_map(steps).collect();
    let mut common = Spans::default();
    for found in parallel::map(&steps, |step| compare(parent, child, *step)) {
        found?.iter().for_each(|span| common.append(span));
    }
    Ok(common.and(populated))
}

fn compare(parent: &Scanner, child: &Scanner, step: Span) -> io::Result<Spans> {
    let mut of_child: Vec<Entry> = Vec::new();
    pagemap::entries(child.pagemap(), step, |_, entry| of_child.push(entry))?;
    let mut of_child = of_child.into_iter();
    let mut common = Spans::default();
    pagemap::entries(parent.pagemap(), step, |page, entry| {
        if of_child.next().is_some_and(|own| own.is_same_as(entry)) {
            common.append(Span { start: page, end: page + PAGE });
        }
    })?;
    Ok(common)
}

fn with_small_holes(spans: &Spans) -> Vec<Span> {
    let mut parts: Vec<Span> = Vec::new();
    for span in spans.iter() {
        match parts.last_mut() {
            Some(last) if span.start - last.end < HOLE => last.end = span.end,
            _ => parts.push(span),
        }
    }
    parts
}

/// Both are read in small steps, so that little happens in between.
fn steps(span: Span) -> impl Iterator<Item = Span> {
    const STEP: u64 = 16 << 20;
    let starts = (span.start..span.end).step_by(16 << 20);
    starts.map(move |start| Span { start, end: span.end.min(start + STEP) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_holes_part() {
        let span = |start, end| Span { start, end };
        let spans = [span(0, PAGE), span(2 * PAGE, 3 * PAGE), span(HOLE + 3 * PAGE, HOLE + 4 * PAGE)];
        let parts = with_small_holes(&spans.into_iter().collect());
        assert_eq!(parts, [span(0, 3 * PAGE), spans[2]]);
        assert_eq!(steps(span(PAGE, 9000 * PAGE)).count(), 3);
    }
}
