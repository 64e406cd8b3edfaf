//! When rounds of memory have come to an end: the rules, without time or sockets of their own.
//!
//! What a round sends was written during the round before. So the rest, if the application were stopped now, is what it
//! writes in as long as the last round took; and the freeze is the time for that rest, besides what every freeze costs.

use std::time::Duration;

use crate::options::{OnTimeout, Rounds};
use crate::report::RoundsEnd;

/// What a freeze takes with nothing left to send, of one process, in times of what it took both ends to get ready: to start CRIU
/// is a part of the same work, on the same hosts at the same load. Measured: 5.7 to 6.7, from idle hosts to very busy ones.
const FIXED: u32 = 6;
/// So many further processes add as much as getting ready took; measured: 4 to 5.
const PROCESSES: u32 = 5;
/// How long idle hosts take to get ready.
pub(crate) const READY: Duration = Duration::from_millis(5);
/// Beyond this, getting ready was held up by something else.
const SLOWEST: Duration = Duration::from_millis(100);
/// What it takes at most to look through memory that stands still, for each GiB: less than while it runs, for nothing is
/// protected anew; measured.
pub(crate) const PER_GIB: Duration = Duration::from_millis(4);
/// A rest below this is not worth another round: its transfer is shorter than its scan.
const SMALL: u64 = 512 << 10;
/// Rounds that send less than this say nothing of the link.
const TELLING: u64 = 4 << 20;
/// What older rounds say of the link counts so much less with each new one: buffers and caches are warm later on.
const FADING: u32 = 2;
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
/// So many times as long as its rounds may take it is slowed down at most.
const THROTTLE_TIMES: u32 = 2;
/// The least time that anything takes: nothing is divided by less.
const MOMENT: f64 = 1e-4;
/// The longest freeze that is foretold, in seconds.
const DAY: f64 = 86_400.0;

/// One round, as it went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// What travelled.
    pub(crate) bytes: u64,
    /// From the begin of its scan to the end of its transfer.
    pub(crate) took: Duration,
    /// Of that, looking for what was written.
    pub(crate) scan: Duration,
    /// Of that, the transfer alone.
    pub(crate) transfer: Duration,
    /// From the scan before to its own; nothing in the first.
    pub(crate) since_scan: Option<Duration>,
    /// All memory that is looked through.
    pub(crate) tracked: u64,
    /// Processes whose memory that is.
    pub(crate) processes: u32,
}

/// What is known after a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outlook {
    /// Bytes per second that travel.
    pub(crate) rate: f64,
    /// Bytes per second that are written.
    pub(crate) dirty_rate: Option<f64>,
    /// What would be left if it were stopped now, in bytes.
    pub(crate) rest: u64,
    /// How long it would stand still.
    pub(crate) freeze: Duration,
    /// The same on idle hosts: what others keep them busy with does not get less by another round.
    pub(crate) at_rest: Duration,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Round,
    Freeze(RoundsEnd),
    /// Takes so much of the processor away, then goes on.
    Throttle(u32),
    GiveUp,
}

#[derive(Debug)]
pub(crate) struct Pace {
    rounds: Rounds,
    /// How long both ends took to get ready.
    ready: Duration,
    count: u32,
    spent: Duration,
    /// Bytes, and how long they took, of rounds that tell something of the link.
    carried: (f64, Duration),
    /// The shortest scan but the first, which also begins to track.
    scan: Option<Duration>,
    last_rest: Option<u64>,
    stuck: u32,
    throttled: u32,
    throttled_at: u32,
}

impl Pace {
    pub(crate) fn new(rounds: Rounds, ready: Duration) -> Self {
        Self {
            rounds,
            ready: ready.clamp(READY, SLOWEST),
            count: 0,
            spent: Duration::ZERO,
            carried: (0.0, Duration::ZERO),
            scan: None,
            last_rest: None,
            stuck: 0,
            throttled: 0,
            throttled_at: 0,
        }
    }

    /// How much of the processor has been taken away.
    pub(crate) const fn throttled(&self) -> u32 {
        self.throttled
    }

    /// Rounds so far.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Takes a round into account.
    pub(crate) fn learn(&mut self, sample: &Sample) -> Outlook {
        self.count += 1;
        self.spent += sample.took;
        let rate = self.rate_with(sample);
        let dirty_rate = sample.since_scan.map(|since| as_float(sample.bytes) / seconds(since));
        let written = dirty_rate.map_or(as_float(sample.bytes), |dirty| dirty * sample.took.as_secs_f64());
        let rest = whole(written).min(sample.tracked.max(sample.bytes));
        let carrying = Duration::from_secs_f64((as_float(rest) / rate).min(DAY));
        let looking = self.last_scan(sample);
        let cost = |ready| cost_of_freeze(sample.processes, ready) + looking + carrying;
        let (freeze, at_rest) = (cost(self.ready), cost(READY));
        self.note_progress(rest);
        Outlook { rate, dirty_rate, rest, freeze, at_rest }
    }

    /// Bytes per second that travel.
    fn rate_with(&mut self, sample: &Sample) -> f64 {
        if sample.bytes >= TELLING {
            self.carried.0 /= f64::from(FADING);
            self.carried.1 /= FADING;
        }
        if sample.bytes >= TELLING || self.carried.0 == 0.0 {
            self.carried.0 += as_float(sample.bytes);
            self.carried.1 += sample.transfer;
        }
        (self.carried.0 / seconds(self.carried.1)).max(1.0)
    }

    /// How long it takes to look for the rest when nothing runs.
    fn last_scan(&mut self, sample: &Sample) -> Duration {
        if self.count > 1 {
            self.scan = Some(self.scan.map_or(sample.scan, |least| least.min(sample.scan)));
        }
        let most = PER_GIB.mul_f64(as_float(sample.tracked) / f64::from(1 << 30));
        self.scan.unwrap_or(sample.scan).min(most)
    }

    fn note_progress(&mut self, rest: u64) {
        let better = self.last_rest.is_none_or(|last| as_float(rest) < as_float(last) * PROGRESS);
        self.stuck = if better { 0 } else { self.stuck + 1 };
        self.last_rest = Some(rest);
    }

    /// What is next, with this outlook.
    pub(crate) fn next(&mut self, outlook: &Outlook) -> Next {
        let fits = outlook.at_rest <= self.rounds.max_downtime;
        // The first round says nothing of what is written; and as long as it pays, a shorter freeze is better than one that
        // just fits.
        let telling = self.count > 1 || outlook.rest <= SMALL;
        let pays = outlook.rest > SMALL && self.stuck == 0;
        let over = self.count >= self.rounds.most || self.spent >= self.rounds.timeout;
        if fits && telling && (!pays || over) {
            return Next::Freeze(RoundsEnd::Converged);
        }
        if !(over || self.stuck >= PATIENCE) {
            return Next::Round;
        }
        match self.rounds.on_timeout {
            OnTimeout::Force => Next::Freeze(RoundsEnd::Forced),
            OnTimeout::Abort => Next::GiveUp,
            OnTimeout::Throttle => self.throttle(),
            OnTimeout::PostCopy => Next::Freeze(RoundsEnd::Owed),
        }
    }

    /// The next step, once the one before has shown what it does, and that it is not enough.
    fn throttle(&mut self) -> Next {
        if self.throttled > 0 && self.spent >= self.rounds.timeout * THROTTLE_TIMES {
            return Next::Freeze(RoundsEnd::Forced);
        }
        let shown = self.count > self.throttled_at + THROTTLE_REST && self.stuck > 0;
        if self.throttled > 0 && !shown {
            return Next::Round;
        }
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

/// What a freeze takes with nothing left to look for or to send.
pub(crate) fn cost_of_freeze(processes: u32, ready: Duration) -> Duration {
    ready * FIXED + ready / PROCESSES * processes.saturating_sub(1)
}

/// Exact to 52 bits.
#[allow(clippy::cast_precision_loss, reason = "rates and predictions")]
const fn as_float(bytes: u64) -> f64 {
    bytes as f64
}

/// Bytes of a figure that is none too large and not negative, or as near as can be.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
pub(crate) const fn whole(figure: f64) -> u64 {
    figure as u64
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(MOMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    /// Of 1 GiB.
    const SCAN: Duration = Duration::from_millis(2);

    /// An application of `memory` bytes that writes `dirty` bytes per second, over a link of `link`, to the end of its rounds.
    fn run(rounds: Rounds, memory: u64, dirty: f64, link: f64) -> (u32, Next, Duration, u32) {
        let mut pace = Pace::new(rounds, READY);
        let mut bytes = memory;
        let mut since_scan = None;
        loop {
            let transfer = Duration::from_secs_f64(as_float(bytes) / link);
            let took = transfer + Duration::from_millis(5);
            let sample =
                Sample { bytes, took, scan: SCAN, transfer, since_scan, tracked: memory, processes: 1 };
            let outlook = pace.learn(&sample);
            let next = pace.next(&outlook);
            if matches!(next, Next::Freeze(_) | Next::GiveUp) || pace.count > 200 {
                return (pace.count, next, outlook.freeze, pace.throttled());
            }
            let speed = dirty * f64::from(100 - pace.throttled()) / 100.0;
            bytes = whole(speed * took.as_secs_f64()).min(memory);
            since_scan = Some(took);
        }
    }

    #[test]
    fn an_idle_application_takes_few_rounds() {
        let (count, next, freeze, _) = run(Rounds::default(), 1024 * MIB, 0.0, 1e9);
        assert_eq!(next, Next::Freeze(RoundsEnd::Converged));
        assert!(count <= 2 && freeze < READY * FIXED + Duration::from_millis(15), "{count} {freeze:?}");
    }

    #[test]
    fn rounds_go_on_while_they_pay() {
        let (count, next, freeze, _) = run(Rounds::default(), 1024 * MIB, 100e6, 1e9);
        assert_eq!(next, Next::Freeze(RoundsEnd::Converged));
        assert!(
            (3..9).contains(&count) && freeze < READY * FIXED + Duration::from_millis(10),
            "{count} {freeze:?}"
        );
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
    fn each_step_of_slowing_down_shows_what_it_does_also_when_there_have_been_all_rounds() {
        let rounds = Rounds { most: 4, on_timeout: OnTimeout::Throttle, ..Rounds::default() };
        let (count, next, freeze, throttled) = run(rounds, 2048 * MIB, 200e6, 110e6);
        assert_eq!(next, Next::Freeze(RoundsEnd::Converged));
        let steps = 1 + (throttled - THROTTLE) / THROTTLE_MORE;
        assert!(count >= 4 + (steps - 1) * (1 + THROTTLE_REST), "{count} rounds for {steps} steps");
        assert!(throttled <= 80 && freeze <= Duration::from_millis(100), "{throttled} {freeze:?}");
    }

    #[test]
    fn time_and_rounds_have_a_limit() {
        let one = Rounds { most: 1, max_downtime: Duration::ZERO, ..Rounds::default() };
        assert_eq!(run(one, 64 * MIB, 1e6, 1e9).0, 1);
        let short =
            Rounds { timeout: Duration::from_millis(1), max_downtime: Duration::ZERO, ..Rounds::default() };
        assert_eq!(run(short, 64 * MIB, 1e6, 1e9).1, Next::Freeze(RoundsEnd::Forced));
        let slowed = Rounds { on_timeout: OnTimeout::Throttle, ..short };
        assert_eq!(run(slowed, 64 * MIB, 1e6, 1e9).1, Next::Freeze(RoundsEnd::Forced));
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn half_a_second() -> Sample {
        Sample {
            bytes: 100 * MIB,
            took: SECOND / 2,
            scan: SCAN,
            transfer: SECOND / 2,
            since_scan: Some(SECOND),
            tracked: 1024 * MIB,
            processes: 1,
        }
    }

    #[test]
    fn the_rest_is_what_is_written_while_the_last_round_travels() {
        let outlook = Pace::new(Rounds::default(), READY).learn(&half_a_second());
        assert_eq!(outlook.rest, 50 * MIB);
        assert_eq!(outlook.freeze, READY * FIXED + SCAN + SECOND / 4);
    }

    #[test]
    fn each_process_costs_something() {
        let freeze = |processes| {
            Pace::new(Rounds::default(), READY).learn(&Sample { processes, ..half_a_second() }).freeze
        };
        assert_eq!(freeze(16) - freeze(1), READY / PROCESSES * 15);
    }

    #[test]
    fn busy_hosts_freeze_for_longer_and_that_is_no_reason_for_more_rounds() {
        let learn = |ready| Pace::new(Rounds::default(), ready).learn(&half_a_second());
        let (idle, busy) = (learn(READY), learn(READY * 5));
        assert_eq!((idle.freeze, busy.at_rest), (idle.at_rest, idle.at_rest));
        assert_eq!(busy.freeze - idle.freeze, READY * FIXED * 4);
    }

    #[test]
    fn the_link_is_as_it_was_lately() {
        let mut pace = Pace::new(Rounds::default(), READY);
        let slow = pace.learn(&Sample { transfer: SECOND * 2, ..half_a_second() });
        let fast = pace.learn(&half_a_second());
        assert_eq!(whole(slow.rate), 50 * MIB);
        assert!(fast.rate > as_float(95 * MIB), "{fast:?}");
        // A round of next to nothing says nothing.
        let next = pace.learn(&Sample { bytes: 4096, ..half_a_second() });
        assert_eq!(next.rate, fast.rate);
    }
}
