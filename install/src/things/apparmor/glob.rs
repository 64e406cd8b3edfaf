//! A glob of all names but some: AppArmor has no other way to leave a hole in what is denied.

use std::collections::{BTreeMap, BTreeSet};

/// Names that are kept, letter by letter.
#[derive(Debug, Default)]
struct Kept {
    next: BTreeMap<char, Kept>,
    /// A name ends here.
    ends: bool,
    /// Whatever follows is kept, too.
    begins: bool,
}

/// A glob that matches every name but those in `kept`, of which one that ends in `*` keeps all that begin so.
pub(super) fn all_but(kept: &[&str]) -> String {
    let mut tree = Kept::default();
    for name in kept {
        let (letters, begins) = name.strip_suffix('*').map_or((*name, false), |start| (start, true));
        let place = letters.chars().fold(&mut tree, |place, letter| place.next.entry(letter).or_default());
        place.begins |= begins;
        place.ends = true;
    }
    let mut alternatives = BTreeSet::new();
    collect(&tree, "", &mut alternatives);
    let alternatives: Vec<String> = alternatives.into_iter().collect();
    match alternatives.as_slice() {
        [only] => only.clone(),
        _ => format!("{{{}}}", alternatives.join(",")),
    }
}

fn collect(place: &Kept, before: &str, alternatives: &mut BTreeSet<String>) {
    if place.begins {
        return;
    }
    if !place.ends && !before.is_empty() {
        alternatives.insert(before.to_owned());
    }
    // A slash is no letter of a name.
    let letters: String = place.next.keys().collect();
    alternatives.insert(match letters.as_str() {
        "" => format!("{before}?*"),
        letters => format!("{before}[^{letters}/]*"),
    });
    for (letter, next) in &place.next {
        collect(next, &format!("{before}{letter}"), alternatives);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether one of the alternatives, in AppArmor's reading, matches.
    fn matches(glob: &str, name: &str) -> bool {
        let inner = glob.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(glob);
        inner.split(',').any(|alternative| {
            let pattern: Vec<char> = alternative.chars().collect();
            let name: Vec<char> = name.chars().collect();
            fits(&pattern, &name)
        })
    }

    fn fits(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*'] => !name.contains(&'/'),
            ['?', rest @ ..] => name.first().is_some_and(|c| *c != '/') && fits(rest, &name[1..]),
            ['[', '^', rest @ ..] => {
                let end = rest.iter().position(|c| *c == ']').unwrap();
                name.first().is_some_and(|c| !rest[..end].contains(c)) && fits(&rest[end + 1..], &name[1..])
            }
            [letter, rest @ ..] => name.first() == Some(letter) && fits(rest, &name[1..]),
        }
    }

    /// Names of the kernel's, and whatever is near the ones that are kept.
    const NAMES: &[&str] = &[
        "core_pattern",
        "msgmax",
        "msgmni",
        "sem",
        "shmmax",
        "shm_rmid_forced",
        "shmall",
        "threads-max",
        "sysrq",
        "n",
        "ns",
        "ns_",
        "ns_last_pi",
        "ns_last_pid",
        "ns_last_pidx",
        "nmi_watchdog",
        "hostname",
        "panic",
        "s",
        "sh",
        "shx",
        "a",
        "_",
        "auto_msgmni",
        "auto_msgmnix",
        "modprobe",
        "kptr_restrict",
        "random",
        "zz",
    ];

    #[test]
    fn what_is_kept_is_left_out_and_nothing_else() {
        let all: [&[&str]; 5] = [
            &["ns_last_pid"],
            &["shm*"],
            &["ns_last_pid", "msg*", "sem*", "shm*", "auto_msgmni"],
            &["kernel"],
            &["a*", "m*"],
        ];
        for kept in all {
            let glob = all_but(kept);
            for name in NAMES {
                let is_kept = kept.iter().any(|kept| match kept.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => name == kept,
                });
                assert_eq!(matches(&glob, name), !is_kept, "{name} by {glob}");
            }
        }
    }
}
