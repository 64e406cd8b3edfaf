//! What a test program says in TAP, the "test anything protocol": a line for each point, in order or not.

use std::collections::BTreeMap;

/// The points of one program: how often each is in order, by its text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Points {
    in_order: BTreeMap<String, usize>,
    /// Whether the program itself ended well.
    ended_well: bool,
}

impl Points {
    pub(super) fn read(output: &str, ended_well: bool) -> Self {
        let mut points = Self { ended_well, ..Self::default() };
        for text in output.lines().filter_map(point_in_order) {
            *points.in_order.entry(text.to_owned()).or_default() += 1;
        }
        points
    }

    pub(super) fn in_order(&self) -> usize {
        self.in_order.values().sum()
    }

    /// What is in order here, and less often or not at all in `other`.
    pub(super) fn lost_in(&self, other: &Self) -> Vec<String> {
        let count = |points: &Self, text: &str| points.in_order.get(text).copied().unwrap_or_default();
        let fewer = self.in_order.iter().filter(|(text, often)| count(other, text) < **often);
        let mut lost: Vec<String> =
            fewer.map(|(text, often)| format!("{text}: {often} times, now {}", count(other, text))).collect();
        if self.ended_well && !other.ended_well {
            lost.push("the program failed".to_owned());
        }
        lost
    }
}

/// `ok 3 - text`; what was skipped shows nothing.
fn point_in_order(line: &str) -> Option<&str> {
    let (number, text) = line.strip_prefix("ok ")?.split_once(' ')?;
    let is_point = number.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with("# SKIP");
    is_point.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_counted_and_lost_ones_named() {
        let model = Points::read(
            "TAP version 13\nok 1 - a\nok 2 - a\nnot ok 3 - b\nok 4 # SKIP c\n  ok 5 - d\n1..4\n",
            true,
        );
        assert_eq!(model.in_order(), 2);
        let other = Points::read("ok 1 - a\nok 2 - b\n", false);
        assert_eq!(model.lost_in(&other), ["- a: 2 times, now 1", "the program failed"]);
        assert_eq!(other.lost_in(&model), ["- b: 1 times, now 0"]);
        assert_eq!(model.lost_in(&model), Vec::<String>::new());
    }
}
