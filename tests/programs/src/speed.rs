//! How much was done in each tenth of a second: what a move costs before and after the pause.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{json, Value};

const PERIOD: Duration = Duration::from_millis(100);

/// Periods that are kept: two minutes.
const KEPT: usize = 1200;

/// A counter, and what it said at the end of each period.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    done: AtomicU64,
    periods: Mutex<VecDeque<(SystemTime, u64)>>,
}

impl Speed {
    /// Starts to look at it, in a thread of its own.
    pub(crate) fn watch() -> Arc<Self> {
        let speed = Arc::new(Self::default());
        let watched = Arc::clone(&speed);
        std::thread::spawn(move || loop {
            std::thread::sleep(PERIOD);
            watched.note(SystemTime::now());
        });
        speed
    }

    /// Counts.
    pub(crate) fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    fn note(&self, now: SystemTime) {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        if periods.len() == KEPT {
            periods.pop_front();
        }
        periods.push_back((now, self.done.load(Ordering::Relaxed)));
    }

    /// `done` in all, and `speed`: pairs of a time of Unix in seconds, and what was done per second in the period that ended
    /// there. A pause makes its period longer.
    pub(crate) fn tell(&self) -> Value {
        let periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        let speeds = periods.iter().zip(periods.iter().skip(1)).map(|((before, less), (end, more))| {
            let seconds = end.duration_since(*before).unwrap_or(PERIOD).as_secs_f64();
            let at = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "a rate, for people to read")]
            let rate = (more - less) as f64 / seconds.max(1e-6);
            json!([at, rate.round()])
        });
        json!({ "done": self.done.load(Ordering::Relaxed), "speed": speeds.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_makes_a_period_longer_and_the_speed_lower() {
        let speed = Speed::default();
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        for (milliseconds, done) in [(100, 10), (200, 10), (700, 10)] {
            speed.add(done);
            speed.note(at(milliseconds));
        }
        assert_eq!(speed.tell(), json!({ "done": 30, "speed": [[0.2, 100.0], [0.7, 20.0]] }));
    }
}
