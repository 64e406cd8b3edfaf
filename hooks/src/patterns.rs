//! Which containers a hook is for: `*` stands for any text, `?` for one character.

/// Whether `pattern` means `name`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last star does not fit: the star takes one character more.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_text() {
        for (pattern, name, fits) in [
            ("web", "web", true),
            ("web", "web1", false),
            ("web*", "web", true),
            ("web*", "web-1", true),
            ("*web", "my web", true),
            ("w?b", "wäb", true),
            ("w?b", "wb", false),
            ("*-a-*b", "x-a-a-b-ab", true),
            ("*-a-*c", "x-a-a-b-ab", false),
            ("*", "", true),
            ("", "", true),
            ("?", "", false),
            ("shop/*/app", "shop/web/app", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_cost_no_time() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&format!("{pattern}b"), &"a".repeat(4000)));
    }
}
