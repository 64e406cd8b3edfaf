//! When rounds of memory have come to an end: the rules, without time or sockets of their own.
//!
//! What a round sends was written during the round before. So the rest, if the application were stopped now, is what it
//! writes in as long as the last round took; and the freeze is the time for that rest, besides what every freeze costs.

use std::time::Duration;

use crate::options::{OnTimeout, Rounds};
use crate::report::RoundsEnd;

/// What a freeze takes with nothing left to send: CRIU on both sides, measured on idle hosts.
const FIXED: Duration = Duration::from_millis(25);
/// What it takes to look through memory that has been sent already, for each GiB; measured.
const PER_GIB: Duration = Duration::from_millis(2);
/// A rest below this is not worth another round: its transfer is shorter than its scan.
const SMALL: u64 = 512 << 10;
/// Rounds that send less than this say nothing of the link.
const TELLING: u64 = 4 << 20;
/// A round that leaves more than this part of the rest before it is no progress.
const PROGRESS: f64 = 0.85;
/// So many rounds without progress are the end of it.
const PATIENCE: u32 = 3;
/// How much of the processor is taken away at first, and then each time, in percent.
const THROTTLE: u32 = 20;
const THROTTLE_MORE: u32 = 15;
const THROTTLE_MOST: u32 = 95;
/// How long the application is left at each step, in rounds.
const THROTTLE_REST: u32 = 2;

/// One round, as it went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// What travelled.
    pub(super) bytes: u64,
    /// From the begin of its scan to the end of its transfer.
    pub(super) took: Duration,
    /// Its transfer alone.
    pub(super) transfer: Duration,
    /// From the scan before to its own; nothing in the first.
    pub(super) since_scan: Option<Duration>,
    /// All memory that is looked through.
    pub(super) tracked: u64,
}

/// What is known after a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outlook {
    /// Bytes per second that travel.
    pub(super) rate: f64,
    /// Bytes per second that are written.
    pub(super) dirty_rate: Option<f64>,
    /// What would be left if it were stopped now, in bytes.
    pub(super) rest: u64,
    /// How long it would stand still.
    pub(super) freeze: Duration,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Round,
    Freeze(RoundsEnd),
    /// Takes so much of the processor away, then goes on.
    Throttle(u32),
    GiveUp,
}

#[derive(Debug)]
pub(super) struct Pace {
    rounds: Rounds,
    count: u32,
    spent: Duration,
    /// Bytes, and how long they took, of rounds that tell something of the link.
    carried: (u64, Duration),
    last_rest: Option<u64>,
    stuck: u32,
    throttled: u32,
    throttled_at: u32,
}

impl Pace {
    pub(super) const fn new(rounds: Rounds) -> Self {
        Self {
            rounds,
            count: 0,
            spent: Duration::ZERO,
            carried: (0, Duration::ZERO),
            last_rest: None,
            stuck: 0,
            throttled: 0,
            throttled_at: 0,
        }
    }

    /// How much of the processor has been taken away.
    pub(super) const fn throttled(&self) -> u32 {
        self.throttled
    }

    /// Takes a round into account.
    pub(super) fn learn(&mut self, sample: &Sample) -> Outlook {
        self.count += 1;
        self.spent += sample.took;
        if sample.bytes >= TELLING || self.carried.0 == 0 {
            self.carried.0 += sample.bytes;
            self.carried.1 += sample.transfer;
        }
        let rate = self.carried.0 as f64 / self.carried.1.as_secs_f64().max(1e-4);
        let rate = rate.max(1.0);
        let dirty_rate = sample.since_scan.map(|since| sample.bytes as f64 / since.as_secs_f64().max(1e-4));
        let written = dirty_rate.map_or(sample.bytes as f64, |dirty| dirty * sample.took.as_secs_f64());
        let rest = written.min(sample.tracked.max(sample.bytes) as f64) as u64;
        let looking = PER_GIB.mul_f64(sample.tracked as f64 / f64::from(1 << 30));
        let freeze = FIXED + looking + Duration::from_secs_f64((rest as f64 / rate).min(86_400.0));
        self.note_progress(rest);
        Outlook { rate, dirty_rate, rest, freeze }
    }

    fn note_progress(&mut self, rest: u64) {
        let better = self.last_rest.is_none_or(|last| (rest as f64) < last as f64 * PROGRESS);
        self.stuck = if better { 0 } else { self.stuck + 1 };
        self.last_rest = Some(rest);
    }

    /// What is next, with this outlook.
    pub(super) fn next(&mut self, outlook: &Outlook) -> Next {
        let fits = outlook.freeze <= self.rounds.max_downtime;
        // The first round says nothing of what is written; and as long as it pays, a shorter freeze is better than one that
        // just fits.
        let telling = self.count > 1 || outlook.rest <= SMALL;
        let pays = outlook.rest > SMALL && self.stuck == 0;
        let over = self.count >= self.rounds.most || self.spent >= self.rounds.timeout;
        if fits && telling && (!pays || over) {
            return Next::Freeze(RoundsEnd::Converged);
        }
        let stuck = self.stuck >= PATIENCE && self.count > self.throttled_at + THROTTLE_REST;
        if !(over || stuck) {
            return Next::Round;
        }
        match self.rounds.on_timeout {
            OnTimeout::Force => Next::Freeze(RoundsEnd::Forced),
            OnTimeout::Abort => Next::GiveUp,
            OnTimeout::Throttle => self.throttle(),
            OnTimeout::PostCopy => Next::Freeze(RoundsEnd::Owed),
        }
    }

    fn throttle(&mut self) -> Next {
        if self.throttled >= THROTTLE_MOST {
            return Next::Freeze(RoundsEnd::Forced);
        }
        let more = if self.throttled == 0 { THROTTLE } else { THROTTLE_MORE };
        self.throttled = (self.throttled + more).min(THROTTLE_MOST);
        self.throttled_at = self.count;
        self.stuck = 0;
        Next::Throttle(self.throttled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// An application of `memory` bytes that writes `dirty` bytes per second, over a link of `link`, to the end of its rounds.
    fn run(rounds: Rounds, memory: u64, dirty: f64, link: f64) -> (u32, Next, Duration, u32) {
        let mut pace = Pace::new(rounds);
        let mut bytes = memory;
        let mut since_scan = None;
        loop {
            let transfer = Duration::from_secs_f64(bytes as f64 / link);
            let took = transfer + Duration::from_millis(5);
            let sample = Sample { bytes, took, transfer, since_scan, tracked: memory };
            let outlook = pace.learn(&sample);
            let next = pace.next(&outlook);
            if matches!(next, Next::Freeze(_) | Next::GiveUp) || pace.count > 200 {
                return (pace.count, next, outlook.freeze, pace.throttled());
            }
            let speed = dirty * f64::from(100 - pace.throttled()) / 100.0;
            bytes = ((speed * took.as_secs_f64()) as u64).min(memory);
            since_scan = Some(took);
        }
    }

    #[test]
    fn an_idle_application_takes_few_rounds() {
        let (count, next, freeze, _) = run(Rounds::default(), 1024 * MIB, 0.0, 1e9);
        assert_eq!(next, Next::Freeze(RoundsEnd::Converged));
        assert!(count <= 2 && freeze < Duration::from_millis(40), "{count} {freeze:?}");
    }

    #[test]
    fn rounds_go_on_while_they_pay() {
        let (count, next, freeze, _) = run(Rounds::default(), 1024 * MIB, 100e6, 1e9);
        assert_eq!(next, Next::Freeze(RoundsEnd::Converged));
        assert!((3..9).contains(&count) && freeze < Duration::from_millis(35), "{count} {freeze:?}");
    }

    #[test]
    fn an_application_that_outruns_the_link_is_handled_as_asked() {
        let rounds = |on_timeout| Rounds { on_timeout, ..Rounds::default() };
        let run = |on_timeout| run(rounds(on_timeout), 2048 * MIB, 200e6, 110e6);
        assert_eq!(run(OnTimeout::Force).1, Next::Freeze(RoundsEnd::Forced));
        assert_eq!(run(OnTimeout::Abort).1, Next::GiveUp);
        let (_, next, freeze, throttled) = run(OnTimeout::Throttle);
        assert_eq!(next, Next::Freeze(RoundsEnd::Converged));
        assert!(throttled >= 50 && freeze <= Duration::from_millis(100), "{throttled} {freeze:?}");
    }

    #[test]
    fn time_and_rounds_have_a_limit() {
        let one = Rounds { most: 1, max_downtime: Duration::ZERO, ..Rounds::default() };
        assert_eq!(run(one, 64 * MIB, 1e6, 1e9).0, 1);
        let short =
            Rounds { timeout: Duration::from_millis(1), max_downtime: Duration::ZERO, ..Rounds::default() };
        assert_eq!(run(short, 64 * MIB, 1e6, 1e9).1, Next::Freeze(RoundsEnd::Forced));
    }

    #[test]
    fn the_rest_is_what_is_written_while_the_last_round_travels() {
        let mut pace = Pace::new(Rounds::default());
        let second = Duration::from_secs(1);
        let sample = Sample {
            bytes: 100 * MIB,
            took: second / 2,
            transfer: second / 2,
            since_scan: Some(second),
            tracked: 1024 * MIB,
        };
        let outlook = pace.learn(&sample);
        assert_eq!(outlook.rest, 50 * MIB);
        assert_eq!(outlook.freeze.as_millis(), 25 + 2 + 250);
    }
}
