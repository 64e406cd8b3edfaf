//! How a migration would go, by the rules by which it goes on or stops: nothing is sent.

use std::time::Duration;

use crate::options::{OnTimeout, Rounds};
use crate::report::RoundsEnd;
use crate::source::pace::{whole, Next, Pace, Sample, READY};

/// What is known of an application.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Its processes.
    pub processes: u32,
    /// Bytes of all memory that is looked through.
    pub tracked: u64,
    /// Bytes that a first round sends.
    pub first_round: u64,
    /// Bytes per second that it writes, page by page.
    pub dirty_rate: u64,
    /// How long it takes to look for what was written.
    pub scan: Duration,
}

/// How it would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Rounds while it runs.
    pub rounds: u32,
    /// How long it would stand still.
    pub freeze: Duration,
    /// Until all of its memory is there.
    pub total: Duration,
    /// Whether that is short enough by itself; else it would be stopped all the same.
    pub converges: bool,
}

/// How what is `known` would move over a link that carries `link` bytes per second.
#[must_use]
pub fn forecast(known: &Known, link: u64, rounds: Rounds) -> Forecast {
    let mut pace = Pace::new(Rounds { on_timeout: OnTimeout::Force, ..rounds }, READY);
    // It does not write more than there is.
    let most = known.first_round.max(known.tracked);
    let (mut bytes, mut since_scan, mut total) = (known.first_round, None, Duration::ZERO);
    loop {
        let transfer = carry(bytes, link);
        let took = known.scan + transfer;
        total += took;
        let sample = Sample {
            bytes,
            took,
            scan: known.scan,
            transfer,
            since_scan,
            tracked: known.tracked,
            processes: known.processes,
        };
        let outlook = pace.learn(&sample);
        if let Next::Freeze(end) = pace.next(&outlook) {
            let (freeze, rounds) = (outlook.freeze, pace.count());
            let converges = end == RoundsEnd::Converged;
            return Forecast { rounds, freeze, total: total + freeze, converges };
        }
        bytes = written(known.dirty_rate, took).min(most);
        since_scan = Some(took);
    }
}

/// The longest that anything is said to take: a year.
const LONGEST: f64 = 3.2e7;

fn carry(bytes: u64, link: u64) -> Duration {
    Duration::from_secs_f64((bytes as f64 / link.max(1) as f64).min(LONGEST))
}

fn written(rate: u64, time: Duration) -> u64 {
    whole(rate as f64 * time.as_secs_f64())
}
