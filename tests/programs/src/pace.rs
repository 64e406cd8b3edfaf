//! How fast memory is written: so many pages each second, no more after a pause.

use std::time::{Duration, Instant};

use crate::pattern::PAGES_PER_MIB;

/// How often there is something to write.
const BEAT: Duration = Duration::from_millis(2);

/// What a writer that was late makes up for.
const LATE: Duration = Duration::from_millis(50);

/// The pace of one writer.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Pages each second.
    rate: f64,
    last: Instant,
    owed: f64,
}

impl Pace {
    /// The pace at which so many writers write `mib` MiB each second together.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn of(mib: usize, writers: usize) -> Self {
        Self { rate: (mib * PAGES_PER_MIB) as f64 / writers as f64, last: Instant::now(), owed: 0.0 }
    }

    /// Waits a moment; answers how many pages are to be written then.
    pub(crate) fn wait(&mut self) -> usize {
        std::thread::sleep(BEAT);
        let elapsed = self.last.elapsed();
        self.last = Instant::now();
        self.due(elapsed)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few, and not negative")]
    fn due(&mut self, elapsed: Duration) -> usize {
        self.owed += elapsed.min(LATE).as_secs_f64() * self.rate;
        let now = self.owed.trunc();
        self.owed -= now;
        now as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_on_the_whole_and_not_made_up_for_after_a_pause() {
        let mut pace = Pace::of(1, 3);
        let pages: usize = (0..300).map(|_| pace.due(Duration::from_millis(10))).sum();
        assert!((255..=256).contains(&pages), "{pages}");
        assert!(pace.due(Duration::from_secs(100)) < 6);
    }
}
