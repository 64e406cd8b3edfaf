//! Where a process has memory, whether anything is in it or not: a mapping without pages has no content that could be compared.

use crate::mappings::{self, Known};
use crate::spans::Spans;
use crate::{Error, Span};

/// Anonymous memory of its own, in spans that touch nowhere.
///
/// # Errors
/// When the process is gone, or we may not.
pub fn anonymous_spans(host: i32) -> Result<Vec<Span>, Error> {
    spans(host, Known::is_anonymous)
}

/// All that is mapped, of whatever kind.
///
/// # Errors
/// When the process is gone, or we may not.
pub fn mapped_spans(host: i32) -> Result<Vec<Span>, Error> {
    spans(host, |_| true)
}

fn spans(host: i32, wanted: impl Fn(&Known) -> bool) -> Result<Vec<Span>, Error> {
    let all = mappings::maps(host).map_err(Error::process("read the mappings", host))?;
    let mut found = Spans::default();
    all.iter().filter(|mapping| wanted(mapping)).for_each(|mapping| found.append(mapping.span()));
    Ok(found.into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sys, PAGE};

    #[test]
    fn a_mapping_without_pages_is_there() {
        let own = sys::OwnPages::new(8).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let ours = |span: &Span| span.start <= own.start() && own.start() + 8 * PAGE <= span.end;
        assert!(anonymous_spans(me).unwrap().iter().any(ours));
        let mapped = mapped_spans(me).unwrap();
        assert!(mapped.iter().any(ours));
        assert!(mapped.windows(2).all(|pair| pair[0].end < pair[1].start));
    }
}
