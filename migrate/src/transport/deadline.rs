//! A point in time, as the limit of the next read or write.

use std::time::{Duration, Instant};

/// A socket's limit must not be nothing, which means for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// When something must be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        let now = Instant::now();
        // A limit that no clock can tell is a year.
        Self { at: now.checked_add(limit).unwrap_or(now + Duration::from_secs(365 * 24 * 3600)) }
    }

    /// The earlier of both.
    pub(crate) fn or(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self { at: self.at.min(other.at) })
    }

    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.at
    }

    /// What is left, as a socket takes it; nothing when it is over.
    pub(crate) fn left(self) -> Option<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.max(SHORTEST))
    }
}
