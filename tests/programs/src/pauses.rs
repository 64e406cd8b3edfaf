//! How long the program stood still, as it saw it itself: a look at the clock each millisecond.
//!
//! The clock is CLOCK_REALTIME: CRIU lets CLOCK_MONOTONIC go on from where it was at the dump, and hides the pause.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{json, Value};

const TICK: Duration = Duration::from_millis(1);

/// So many pauses are kept, the longest.
const KEPT: usize = 8;

/// A watch that runs as long as the program.
#[derive(Debug, Clone)]
pub(crate) struct Pauses(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ticks: u64,
    /// The longest first: how long, and when it ended.
    longest: Vec<(Duration, SystemTime)>,
}

impl Pauses {
    /// Starts the watch, in a thread of its own.
    pub(crate) fn watch() -> Self {
        let pauses = Self(Arc::default());
        let watched = pauses.clone();
        std::thread::spawn(move || watched.tick());
        pauses
    }

    fn tick(&self) {
        let mut last = SystemTime::now();
        loop {
            std::thread::sleep(TICK);
            let now = SystemTime::now();
            // A clock that was set back shows no pause.
            self.add(now.duration_since(last).unwrap_or_default(), now);
            last = now;
        }
    }

    fn add(&self, pause: Duration, end: SystemTime) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.ticks += 1;
        let place = state.longest.partition_point(|(longer, _)| *longer >= pause);
        if place < KEPT {
            state.longest.truncate(KEPT - 1);
            state.longest.insert(place, (pause, end));
        }
    }

    /// Forgets all pauses so far.
    pub(crate) fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// `ticks` and `max_gap_us` since the last reset, and in `gaps` the longest ones: `us` long, ended `at` a time of Unix, in
    /// seconds.
    pub(crate) fn tell(&self) -> Value {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps = state.longest.iter().map(|(pause, end)| {
            json!({ "us": microseconds(*pause), "at": end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() })
        });
        json!({
            "ticks": state.ticks,
            "max_gap_us": state.longest.first().map_or(0, |(pause, _)| microseconds(*pause)),
            "gaps": gaps.collect::<Vec<_>>(),
        })
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pauses_are_kept_in_order() {
        let pauses = Pauses(Arc::default());
        for milliseconds in [3, 1, 9, 4, 1, 5, 9, 2, 6, 5, 3] {
            pauses.add(Duration::from_millis(milliseconds), UNIX_EPOCH);
        }
        let told = pauses.tell();
        let kept: Vec<u64> =
            told["gaps"].as_array().unwrap().iter().filter_map(|gap| gap["us"].as_u64()).collect();
        assert_eq!(kept, [9000, 9000, 6000, 5000, 5000, 4000, 3000, 3000]);
        assert_eq!((&told["max_gap_us"], &told["ticks"]), (&json!(9000), &json!(11)));
        pauses.reset();
        assert_eq!(pauses.tell()["max_gap_us"], 0);
    }
}
