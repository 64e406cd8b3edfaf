//! The parts of an address space that are registered with a userfaultfd: nearly all of it, holes too.
//!
//! Between the look at the mappings and their registration they change. Where a registered range ends within a mapping, the kernel
//! splits that, and the program's `mremap` across the place fails with EFAULT. So ranges end only where a mapping lies that can be
//! none of them and that nothing grows into; within one, mappings that are alike are joined and grow as ever. What is registered
//! besides what we look at costs nothing: no page of it is write-protected.

use crate::mappings::Known;
use crate::Span;

/// Below it the kernel registers nothing.
const LOWEST: u64 = 0x1_0000;
/// The end of what programs map, on most machines.
const HIGHEST: u64 = 0x7fff_ffff_f000;
/// The kernel's own half.
const KERNEL: u64 = 1 << 63;
/// Flags of mappings that are left out: the kernel refuses some (`dp`; others' userfaultfds, `um` and `ui`), and some have page
/// tables of their own ways (`ht`, `io`, `pf`).
const LEFT_OUT: [&str; 6] = ["dp", "um", "ui", "ht", "io", "pf"];

/// All ranges with something in them.
pub(crate) fn runs(known: &[Known]) -> Vec<Span> {
    let known = || known.iter().filter(|mapping| mapping.start < KERNEL);
    let end = known().map(|mapping| mapping.end).max().unwrap_or_default().max(HIGHEST);
    let mut runs = Vec::new();
    let (mut start, mut is_empty) = (LOWEST.min(known().map(|m| m.start).min().unwrap_or(LOWEST)), true);
    for mapping in known() {
        if !is_left_out(mapping) {
            is_empty = false;
            continue;
        }
        if !is_empty {
            runs.push(Span { start, end: mapping.start });
        }
        (start, is_empty) = (mapping.end, true);
    }
    if !is_empty {
        runs.push(Span { start, end });
    }
    runs
}

fn is_left_out(mapping: &Known) -> bool {
    // Without `mw`, "may write", the kernel refuses: files that are shared read-only, and its own pages.
    !mapping.has("mw") || LEFT_OUT.iter().any(|flag| mapping.has(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, flags: &str) -> Known {
        let (start, end) = (start << 20, end << 20);
        Known { start, end, flags: flags.into(), ..Known::default() }
    }

    #[test]
    fn ranges_reach_over_holes_and_end_at_what_is_refused() {
        let plain = "rd wr mr mw me ac";
        let refused = mapping(9, 10, "rd mr me");
        let all = [mapping(1, 2, plain), mapping(4, 5, plain), refused, mapping(10, 11, "rd mw dp")];
        assert_eq!(runs(&all), [Span { start: LOWEST, end: 9 << 20 }]);
        let more = [&all[..], &[mapping(20, 21, plain)]].concat();
        assert_eq!(runs(&more)[1], Span { start: 11 << 20, end: HIGHEST });
        let kernel = Known { start: !0xfff, end: u64::MAX, ..Known::default() };
        assert_eq!(runs(&[mapping(1, 2, plain), kernel]), [Span { start: LOWEST, end: HIGHEST }]);
        assert!(runs(&[]).is_empty());
    }
}
