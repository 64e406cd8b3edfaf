//! How a move would go over a link, with what is known of an application: the rules and figures by which a migration itself
//! goes on or stops, with its defaults, before anything is sent.

use std::time::Duration;

use fastmig_api::request::MigrateRequest;
use fastmig_engine::Cost;
use serde_json::{json, Value};

/// What a freeze takes with nothing left to send.
const FIXED: Duration = Duration::from_millis(25);
/// What it takes to look through memory, for each GiB.
const PER_GIB: Duration = Duration::from_millis(2);
/// A rest below this is not worth another round.
const SMALL: f64 = (512 << 10) as f64;
/// A round that leaves more than this part of the rest before it is no progress.
const PROGRESS: f64 = 0.85;
/// So many rounds without progress are the end of it.
const PATIENCE: u32 = 3;

/// How a move would go over one link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Forecast {
    /// The link, in MB/s.
    pub(super) link: u64,
    /// Rounds while it runs.
    pub(super) rounds: u32,
    /// How long it would stand still.
    pub(super) freeze: Duration,
    /// Until all of its memory is there.
    pub(super) total: Duration,
    /// Whether that is short enough by itself; else it would be stopped all the same, unless something else is asked for.
    pub(super) converges: bool,
}

impl Forecast {
    pub(super) fn of(cost: &Cost, link: u64) -> Self {
        let defaults = MigrateRequest::new("");
        let (shortest, longest) =
            (Duration::from_millis(defaults.max_downtime_ms), Duration::from_secs(defaults.rounds_timeout_s));
        let rate = link.max(1) as f64 * 1e6;
        let carry = |bytes: f64| Duration::from_secs_f64((bytes / rate).min(1e9));
        let looking = PER_GIB.mul_f64(cost.tracked as f64 / f64::from(1 << 30));
        let (mut bytes, mut total, mut stuck) = (cost.first_round as f64, Duration::ZERO, 0);
        // It does not write more than there is.
        let most = cost.first_round.max(cost.dirty) as f64;
        let mut last = f64::INFINITY;
        let mut rounds = 0;
        loop {
            rounds += 1;
            let took = carry(bytes) + looking;
            total += took;
            let rest = (cost.dirty_rate as f64 * took.as_secs_f64()).min(most);
            let freeze = FIXED + looking + carry(rest);
            stuck = if rest < last * PROGRESS { 0 } else { stuck + 1 };
            let over = rounds >= defaults.max_rounds || total >= longest;
            let telling = rounds > 1 || rest <= SMALL;
            let pays = rest > SMALL && stuck == 0;
            let converges = freeze <= shortest && telling && (!pays || over);
            if converges || over || stuck >= PATIENCE {
                return Self { link, rounds, freeze, total: total + freeze, converges };
            }
            (last, bytes) = (rest, rest);
        }
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "link_mb_s": self.link,
            "rounds": self.rounds,
            "freeze_ms": milliseconds(self.freeze),
            "total_ms": milliseconds(self.total),
            "converges": self.converges,
        })
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::commands::check) fn cost(first_round: u64, dirty_rate: u64) -> Cost {
        Cost {
            tracker: "asynchronous write-protection".into(),
            processes: 3,
            untracked: 0,
            tracked: first_round,
            first_round,
            dirty: dirty_rate,
            window: Duration::from_secs(1),
            dirty_rate,
            stopped: Duration::from_micros(310),
        }
    }

    #[test]
    fn an_idle_application_stands_still_for_what_every_freeze_takes() {
        let forecast = Forecast::of(&cost(1 << 30, 0), 1000);
        assert_eq!((forecast.rounds, forecast.converges), (1, true));
        assert_eq!(milliseconds(forecast.freeze), 27);
        assert_eq!(milliseconds(forecast.total), 1073 + 2 + 27);
    }

    #[test]
    fn a_slower_link_takes_more_rounds() {
        let cost = cost(1 << 30, 50_000_000);
        let (slow, fast) = (Forecast::of(&cost, 110), Forecast::of(&cost, 1000));
        assert!(slow.converges && fast.converges, "{slow:?} {fast:?}");
        assert!(slow.rounds > fast.rounds && slow.total > fast.total, "{slow:?} {fast:?}");
        assert!(fast.freeze < Duration::from_millis(35), "{fast:?}");
    }

    #[test]
    fn what_writes_faster_than_the_link_carries_is_stopped_all_the_same() {
        let forecast = Forecast::of(&cost(1 << 30, 200_000_000), 110);
        assert!(!forecast.converges && forecast.rounds < 10, "{forecast:?}");
        assert!(forecast.freeze > Duration::from_secs(9), "{forecast:?}");
    }

    #[test]
    fn whatever_is_measured_it_comes_to_an_end() {
        for (first, rate, link) in [(0, 0, 0), (u64::MAX, u64::MAX, 1), (0, u64::MAX, u64::MAX), (1, 1, 1)] {
            let forecast = Forecast::of(&cost(first, rate), link);
            assert!((1..=30).contains(&forecast.rounds), "{forecast:?}");
        }
    }
}
