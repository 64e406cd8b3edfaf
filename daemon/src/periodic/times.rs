//! When the next checkpoint of a container is due.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastmig_engine::Key;

/// What is known of one container.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When it was seen first, or its last one before that was taken.
    since: Instant,
    /// What `since` was before the last one was begun.
    before: Instant,
}

/// When each container had its last one. One that was tried counts: what fails is not tried again at once.
#[derive(Debug, Default)]
pub(super) struct Times(HashMap<Key, Seen>);

impl Times {
    /// Whether one is due; `age` is that of the last one on disk, asked for once.
    pub(super) fn is_due(
        &mut self,
        key: &Key,
        interval: Duration,
        now: Instant,
        age: impl FnOnce() -> Option<Duration>,
    ) -> bool {
        let seen = self.0.entry(key.clone()).or_insert_with(|| {
            // A container that is new to us has time to come up before its first one.
            let since = age().and_then(|age| now.checked_sub(age)).unwrap_or(now);
            Seen { since, before: since }
        });
        now.saturating_duration_since(seen.since) >= interval
    }

    /// One begins now.
    pub(super) fn begun(&mut self, key: &Key, now: Instant) {
        if let Some(seen) = self.0.get_mut(key) {
            *seen = Seen { since: now, before: seen.since };
        }
    }

    /// It did not begin after all.
    pub(super) fn not_begun(&mut self, key: &Key) {
        if let Some(seen) = self.0.get_mut(key) {
            seen.since = seen.before;
        }
    }

    /// Forgets all others.
    pub(super) fn keep_only<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        let keys: std::collections::HashSet<&Key> = keys.collect();
        self.0.retain(|key, _| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_comes_after_an_interval_and_what_failed_waits_for_the_next() {
        let key = Key::new("n", "c").unwrap();
        let mut times = Times::default();
        let begin = Instant::now();
        let due = |times: &mut Times, at: Duration| times.is_due(&key, MINUTE, begin + at, || None);
        assert!(!due(&mut times, Duration::ZERO) && !due(&mut times, MINUTE / 2) && due(&mut times, MINUTE));
        times.begun(&key, begin + MINUTE);
        assert!(!due(&mut times, MINUTE + MINUTE / 2) && due(&mut times, 2 * MINUTE));
        times.begun(&key, begin + 2 * MINUTE);
        times.not_begun(&key);
        assert!(due(&mut times, 2 * MINUTE));
        times.keep_only(std::iter::empty());
        assert!(!due(&mut times, 2 * MINUTE));
    }

    #[test]
    fn a_daemon_that_starts_again_goes_on_where_it_was() {
        let key = Key::new("n", "c").unwrap();
        let now = Instant::now() + 2 * MINUTE;
        let late = |age| Times::default().is_due(&key, MINUTE, now, || Some(age));
        assert!(late(MINUTE + MINUTE / 2) && !late(MINUTE / 2));
    }
}
