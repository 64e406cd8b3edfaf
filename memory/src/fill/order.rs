//! In which order things happened that were told at the same time.
//!
//! The kernel tells of them when they are done already, the earliest first; but those of two threads may have been put down in
//! the wrong order. Each thread waits until it is heard, though, so nobody but it knows yet of memory that it has moved to a
//! new place: who gave that place up at the same time did so before.

use std::ops::Range;

use super::message::Message;

/// Of what the kernel has told.
pub(super) fn in_order(mut told: Vec<Message>) -> Vec<Message> {
    let mut ordered = Vec::with_capacity(told.len());
    while !told.is_empty() {
        let waits_for_none = |at: &usize| !told.iter().any(|other| must_precede(other, &told[*at]));
        // In a circle, which is impossible, the earliest.
        let next = (0..told.len()).find(waits_for_none).unwrap_or(0);
        ordered.push(told.remove(next));
    }
    ordered
}

fn must_precede(one: &Message, other: &Message) -> bool {
    let overlap = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
    match (one, other) {
        // Only what is there can be emptied.
        (Message::Remap { to, length, .. }, Message::Emptied { start, end }) => {
            overlap(&(*to..to.saturating_add(*length)), &(*start..*end))
        }
        (_, Message::Remap { to, length, .. }) => {
            given_up(one).is_some_and(|place| overlap(&place, &(*to..to.saturating_add(*length))))
        }
        _ => false,
    }
}

/// The place that is free then.
fn given_up(message: &Message) -> Option<Range<u64>> {
    match message {
        Message::Remap { from, length, .. } => Some(*from..from.saturating_add(*length)),
        Message::Unmapped { start, end } => Some(*start..*end),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remap(from: u64, to: u64) -> Message {
        Message::Remap { from, to, length: 8 }
    }

    fn told(messages: Vec<Message>) -> Vec<String> {
        in_order(messages).iter().map(|message| format!("{message:?}")).collect()
    }

    fn names(messages: &[Message]) -> Vec<String> {
        messages.iter().map(|message| format!("{message:?}")).collect()
    }

    #[test]
    fn what_has_nothing_to_do_with_each_other_stays_in_order() {
        let all = || vec![Message::Fault(1), remap(40, 80), Message::Unmapped { start: 0, end: 9 }];
        assert_eq!(told(all()), names(&all()));
    }

    #[test]
    fn a_place_is_given_up_before_it_is_taken() {
        let gone = || Message::Unmapped { start: 84, end: 100 };
        for both in [vec![gone(), remap(40, 80)], vec![remap(40, 80), gone()]] {
            assert_eq!(told(both), names(&[gone(), remap(40, 80)]));
        }
        for all in [
            vec![remap(0, 40), remap(40, 80), remap(80, 120)],
            vec![remap(80, 120), remap(0, 40), remap(40, 80)],
            vec![remap(40, 80), remap(80, 120), remap(0, 40)],
        ] {
            assert_eq!(told(all), names(&[remap(80, 120), remap(40, 80), remap(0, 40)]));
        }
    }

    #[test]
    fn what_is_emptied_is_there() {
        let emptied = || Message::Emptied { start: 80, end: 84 };
        for both in [vec![emptied(), remap(40, 80)], vec![remap(40, 80), emptied()]] {
            assert_eq!(told(both), names(&[remap(40, 80), emptied()]));
        }
    }
}
