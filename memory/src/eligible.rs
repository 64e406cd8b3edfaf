//! Which mappings are sent by us, and the areas around them.

use crate::mappings::Known;
use crate::{Area, Span};

/// Smaller mappings are not worth a buffer of their own: CRIU dumps them as fast.
const MIN_LENGTH: u64 = 128 << 10;
/// Nor are those with less in them.
const MIN_POPULATED: u64 = 64 << 10;
/// The flags of mappings that we understand: access, accounting, advice on huge pages, merging, reading ahead, dumps and
/// forks, soft-dirtiness, and our own write-protection. Not, for example, a stack (`gd`), locked memory (`lo`), devices
/// (`io`, `pf`), huge pages of hugetlbfs (`ht`), shadow stacks (`ss`), another's userfaultfd (`um`), sealed ones (`sl`).
const UNDERSTOOD: [&str; 18] = [
    "rd", "wr", "ex", "mr", "mw", "me", "ac", "nr", "hg", "nh", "mg", "sr", "rr", "dd", "dc", "wf", "sd",
    "uw",
];

/// Of these mappings, those to be sent: the places in the slice.
///
/// Adjacent mappings that are alike count as one: the kernel joins no tracked mapping with what grows beside it.
pub(crate) fn eligible(mappings: &[Known]) -> Vec<usize> {
    let mut chosen = Vec::new();
    let mut first = 0;
    while first < mappings.len() {
        let mut after = first + 1;
        while after < mappings.len() && continues(&mappings[after - 1], &mappings[after]) {
            after += 1;
        }
        let run = &mappings[first..after];
        let length: u64 = run.iter().map(|m| m.end - m.start).sum();
        let populated: u64 = run.iter().map(|m| m.populated).sum();
        if is_understood(&mappings[first]) && length >= MIN_LENGTH && populated >= MIN_POPULATED {
            chosen.extend(first..after);
        }
        first = after;
    }
    chosen
}

fn is_understood(mapping: &Known) -> bool {
    let mut flags = mapping.flags.split_ascii_whitespace().peekable();
    mapping.is_anonymous() && flags.peek().is_some() && flags.all(|flag| UNDERSTOOD.contains(&flag))
}

fn continues(before: &Known, next: &Known) -> bool {
    let lasting = |m: &Known| -> Vec<String> {
        m.flags.split_ascii_whitespace().filter(|f| !["uw", "sd"].contains(f)).map(str::to_owned).collect()
    };
    before.end == next.start
        && before.is_anonymous()
        && next.is_anonymous()
        && before.name == next.name
        && lasting(before) == lasting(next)
}

/// The areas of process `process` in which `sent` (sorted) lie.
pub(crate) fn areas(process: i32, mappings: &[Known], sent: &[Span]) -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    for mapping in mappings.iter().filter(|m| m.is_anonymous()) {
        let (no_reserve, no_huge) = (mapping.has("nr"), mapping.has("nh"));
        // A thread's stack often lies next to other memory, and is to have no huge pages.
        let alike = |area: &&mut Area| {
            area.end == mapping.start && (area.no_reserve, area.no_huge) == (no_reserve, no_huge)
        };
        match areas.last_mut().filter(alike) {
            Some(area) => area.end = mapping.end,
            None => {
                areas.push(Area { process, start: mapping.start, end: mapping.end, no_reserve, no_huge });
            }
        }
    }
    areas.retain(|area| {
        let next = sent.partition_point(|span| span.start < area.start);
        sent.get(next).is_some_and(|span| span.start < area.end)
    });
    areas
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of them are enough for a mapping.
    const UNIT: u64 = 64 << 10;

    fn mapping(start: u64, end: u64, flags: &str) -> Known {
        let (start, end) = (start * UNIT, end * UNIT);
        Known { start, end, private: true, flags: flags.into(), populated: UNIT, ..Known::default() }
    }

    #[test]
    fn small_empty_and_strange_ones_are_left() {
        let plain = "rd wr mr mw me ac sd";
        assert_eq!(eligible(&[mapping(0, 2, plain)]), [0]);
        assert!(eligible(&[mapping(0, 1, plain)]).is_empty(), "too small");
        assert!(eligible(&[Known { populated: 4096, ..mapping(0, 9, plain) }]).is_empty(), "nearly empty");
        for strange in ["gd", "lo", "io", "pf", "ht", "ss", "um", "sl", "??", "dp", "lf"] {
            assert!(eligible(&[mapping(0, 9, &format!("{plain} {strange}"))]).is_empty(), "{strange}");
        }
        assert!(eligible(&[mapping(0, 9, "")]).is_empty(), "flags unknown");
        assert!(eligible(&[Known { inode: 7, ..mapping(0, 9, plain) }]).is_empty(), "a file");
        assert!(eligible(&[Known { private: false, ..mapping(0, 9, plain) }]).is_empty(), "shared");
        assert!(eligible(&[Known { name: "[stack]".into(), ..mapping(0, 9, plain) }]).is_empty());
        assert_eq!(eligible(&[Known { name: "[anon:jit]".into(), ..mapping(0, 9, plain) }]), [0]);
    }

    #[test]
    fn what_grows_beside_a_tracked_mapping_is_of_it() {
        let all = [mapping(0, 9, "rd wr ac uw"), mapping(9, 10, "rd wr ac sd"), mapping(10, 11, "rd ac")];
        assert_eq!(eligible(&all), [0, 1]);
    }

    #[test]
    fn an_area_reaches_over_what_is_private_and_anonymous_and_of_one_kind() {
        let all = [
            mapping(0, 1, "rd"),
            mapping(1, 9, "rd wr"),
            mapping(9, 10, "nh lo"),
            mapping(11, 20, "rd wr"),
            Known { inode: 1, ..mapping(20, 21, "rd") },
        ];
        let sent = [all[1].span()];
        let area = Area { process: 5, start: 0, end: 9 * UNIT, no_reserve: false, no_huge: false };
        assert_eq!(areas(5, &all, &sent), [area]);
        assert_eq!(areas(5, &all, &[all[1].span(), all[3].span()]).len(), 2);
        assert!(areas(5, &all, &[]).is_empty());
    }
}
