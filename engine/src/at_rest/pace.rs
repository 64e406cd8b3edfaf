//! Whether another round pays.

/// A rest below this is written in the freeze sooner than another round is begun.
const SMALL: u64 = 1 << 20;
/// A round that leaves more than this part of the one before, in hundredths, is no progress.
const PROGRESS: u64 = 70;
/// Who writes without an end is not followed without one.
const MOST: usize = 8;

/// Whether there is to be another round after those that had so many bytes each.
pub(super) fn another(rounds: &[u64]) -> bool {
    match rounds {
        // What was written while all was read, which takes the longest.
        [] | [_] => true,
        [.., before, last] => {
            rounds.len() < MOST && *last > SMALL && (rounds.len() == 2 || *last < before / 100 * PROGRESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_end_when_they_do_not_get_smaller_or_are_small() {
        const MIB: u64 = 1 << 20;
        assert!(another(&[]) && another(&[100 * MIB]) && another(&[100 * MIB, 90 * MIB]));
        assert!(another(&[100 * MIB, 90 * MIB, 40 * MIB]));
        assert!(!another(&[100 * MIB, 90 * MIB, 80 * MIB]));
        assert!(!another(&[100 * MIB, MIB]));
        let halves: Vec<u64> = (0..20).map(|n| (1 << 40) >> n).take(MOST).collect();
        assert!(another(&halves[..MOST - 1]) && !another(&halves));
    }
}
