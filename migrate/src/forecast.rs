//! How a migration would go, by the rules by which it goes on or stops: nothing is sent.

use std::time::Duration;

use crate::options::{OnTimeout, Rounds, Strategy};
use crate::report::RoundsEnd;
use crate::source::pace::{cost_of_freeze, whole, Next, Pace, Sample, PER_GIB, READY};

/// The most rounds before the rest is owed: each of them sends what is written again.
pub(crate) const HYBRID_ROUNDS: u32 = 3;

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

/// How it would go by each strategy, the one that is taken unasked first: all memory is there before the application runs
/// elsewhere, and it stands still for the shortest time. After `post-copy` and `hybrid` it depends on its old host for a while.
#[must_use]
pub fn by_strategy(known: &Known, link: u64, rounds: Rounds) -> [(Strategy, Forecast); 4] {
    let pre_copy = forecast(known, link, rounds);
    let least = cost_of_freeze(known.processes, READY);
    let looking = PER_GIB.mul_f64(known.tracked as f64 / f64::from(1 << 30)).min(known.scan);
    let all = carry(known.first_round, link);
    let fits = |freeze| freeze <= rounds.max_downtime;
    let stopped = least + all;
    let stop_copy = Forecast { rounds: 0, freeze: stopped, total: stopped, converges: fits(stopped) };
    let bare = least + looking;
    let post_copy =
        Forecast { rounds: 0, freeze: bare, total: known.scan + bare + all, converges: fits(bare) };
    let few = forecast(known, link, Rounds { most: rounds.most.min(HYBRID_ROUNDS), ..rounds });
    let hybrid = Forecast { freeze: bare, converges: fits(bare), ..few };
    [
        (Strategy::PreCopy, pre_copy),
        (Strategy::StopCopy, stop_copy),
        (Strategy::Hybrid, hybrid),
        (Strategy::PostCopy, post_copy),
    ]
}

/// The longest that anything is said to take: a year.
const LONGEST: f64 = 3.2e7;

fn carry(bytes: u64, link: u64) -> Duration {
    Duration::from_secs_f64((bytes as f64 / link.max(1) as f64).min(LONGEST))
}

fn written(rate: u64, time: Duration) -> u64 {
    whole(rate as f64 * time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of(dirty_rate: u64, link: u64) -> [(Strategy, Forecast); 4] {
        let scan = Duration::from_millis(3);
        let known = Known { processes: 1, tracked: GIB, first_round: GIB, dirty_rate, scan };
        by_strategy(&known, link, Rounds::default())
    }

    #[test]
    fn rounds_stand_still_for_less_than_a_copy_and_longer_than_what_is_owed() {
        let [(_, pre), (_, stop), (_, hybrid), (_, post)] = of(50 << 20, 500 << 20);
        assert!(pre.freeze * 10 < stop.freeze, "{pre:?} {stop:?}");
        assert!(post.freeze <= pre.freeze && hybrid.freeze == post.freeze, "{pre:?} {hybrid:?} {post:?}");
        assert!(stop.total < pre.total && post.total < pre.total, "{pre:?} {stop:?} {post:?}");
        assert!(pre.converges && !stop.converges && post.converges);
        assert!(hybrid.rounds <= HYBRID_ROUNDS, "{hybrid:?}");
    }

    #[test]
    fn what_writes_faster_than_the_link_carries_moves_shortly_only_when_memory_follows() {
        let [(_, pre), _, (_, hybrid), (_, post)] = of(400 << 20, 110 << 20);
        assert!(!pre.converges && post.converges && hybrid.converges, "{pre:?} {post:?}");
        assert!(pre.freeze > Duration::from_secs(5) && post.freeze < Duration::from_millis(100));
    }
}
