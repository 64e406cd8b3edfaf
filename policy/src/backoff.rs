//! How long a restart waits: not at all after the first failures, then twice as long each time.

use std::time::Duration;

use serde::Deserialize;

/// The times between an end and the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// After the first failure in the window.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub first: Duration,
    /// Never more.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after so many failures.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let factor = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        self.first.checked_mul(factor).map_or(self.longest, |wait| wait.min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) };
        let waits: Vec<_> = (0..7).map(|failures| backoff.after(failures).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 10, 10]);
    }

    proptest! {
        #[test]
        fn it_never_shrinks_and_never_exceeds(first in 0_u64..1 << 40, longest in 0_u64..1 << 40, n: u32) {
            let backoff = Backoff {
                first: Duration::from_millis(first),
                longest: Duration::from_millis(longest),
            };
            prop_assert!(backoff.after(n) <= backoff.longest);
            prop_assert!(backoff.after(n) <= backoff.after(n.saturating_add(1)));
        }
    }
}
