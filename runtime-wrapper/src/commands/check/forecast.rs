//! How a move would go over a link, with what is known of an application, and the defaults of `fastmig migrate`.

use std::time::Duration;

use fastmig_api::request::MigrateRequest;
use fastmig_engine::Cost;
use fastmig_migrate::forecast::{by_strategy, Known};
use fastmig_migrate::options::{Rounds, Strategy};
use serde_json::{json, Value};

/// How a move would go over one link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Forecast {
    /// How memory travels.
    pub(super) strategy: Strategy,
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
    /// By each strategy.
    pub(super) fn each(cost: &Cost, link: u64) -> Vec<Self> {
        let defaults = MigrateRequest::new("");
        let rounds = Rounds {
            max_downtime: Duration::from_millis(defaults.max_downtime_ms),
            most: defaults.max_rounds,
            timeout: Duration::from_secs(defaults.rounds_timeout_s),
            ..Rounds::default()
        };
        let known = Known {
            processes: u32::try_from(cost.processes).unwrap_or(u32::MAX),
            tracked: cost.tracked,
            first_round: cost.first_round,
            dirty_rate: cost.dirty_rate,
            scan: cost.scan,
        };
        let each = by_strategy(&known, link.saturating_mul(1_000_000), rounds);
        let told = |(strategy, forecast)| {
            let fastmig_migrate::forecast::Forecast { rounds, freeze, total, converges } = forecast;
            Self { strategy, link, rounds, freeze, total, converges }
        };
        each.into_iter().map(told).collect()
    }

    /// As `fastmig migrate --strategy` has it.
    pub(super) const fn strategy(&self) -> &'static str {
        match self.strategy {
            Strategy::StopCopy => "stop-copy",
            Strategy::PreCopy => "pre-copy",
            Strategy::PostCopy => "post-copy",
            Strategy::Hybrid => "hybrid",
            _ => "auto",
        }
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "strategy": self.strategy(),
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
            shared: 0,
            dirty: dirty_rate,
            window: Duration::from_secs(1),
            dirty_rate,
            scan: Duration::from_millis(2),
            stopped: Duration::from_micros(310),
        }
    }

    /// As it goes unasked.
    fn of(cost: &Cost, link: u64) -> Forecast {
        Forecast::each(cost, link)[0]
    }

    #[test]
    fn an_idle_application_stands_still_for_what_every_freeze_takes() {
        let forecast = of(&cost(1 << 30, 0), 1000);
        assert_eq!((forecast.rounds, forecast.converges), (2, true));
        assert!(forecast.freeze < Duration::from_millis(50), "{forecast:?}");
        assert_eq!(milliseconds(forecast.total - forecast.freeze), 1073 + 2 + 2);
    }

    #[test]
    fn a_slower_link_takes_more_rounds() {
        let cost = cost(1 << 30, 50_000_000);
        let (slow, fast) = (of(&cost, 110), of(&cost, 1000));
        assert!(slow.converges && fast.converges, "{slow:?} {fast:?}");
        assert!(slow.rounds > fast.rounds && slow.total > fast.total, "{slow:?} {fast:?}");
        assert!(fast.freeze < Duration::from_millis(50), "{fast:?}");
    }

    #[test]
    fn what_writes_faster_than_the_link_carries_is_stopped_all_the_same() {
        let forecast = of(&cost(1 << 30, 200_000_000), 110);
        assert!(!forecast.converges && forecast.rounds < 10, "{forecast:?}");
        assert!(forecast.freeze > Duration::from_secs(9), "{forecast:?}");
    }

    #[test]
    fn whatever_is_measured_it_comes_to_an_end() {
        for (first, rate, link) in [(0, 0, 0), (u64::MAX, u64::MAX, 1), (0, u64::MAX, u64::MAX), (1, 1, 1)] {
            let forecast = of(&cost(first, rate), link);
            assert!((1..=30).contains(&forecast.rounds), "{forecast:?}");
        }
    }
}
