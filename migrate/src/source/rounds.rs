//! Rounds of memory: most of it travels while the application runs, the last one while it stands still.

use std::io::Write;
use std::time::{Duration, Instant};

use super::pace::{whole, Next, Outlook, Pace, Sample};
use super::run::Departure;
use crate::ends::{Leaving, Pass, Round};
use crate::error::Error;
use crate::files::StreamOut;
use crate::forecast::{by_strategy, Forecast, Known, HYBRID_ROUNDS};
use crate::journal::Serving;
use crate::options::{OnTimeout, Rounds, Strategy};
use crate::phase::Phase;
use crate::phases::milliseconds;
use crate::progress::Event;
use crate::report;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::Message;

/// How much longer than its rounds the phase may take when it is given up then: the last of them has begun in time.
const GRACE: u32 = 2;
/// The same where it is to go on then: slowed down step by step, and with a last round that takes as long as it takes.
const LONG_GRACE: u32 = 4;

impl Departure<'_> {
    /// All rounds while the application runs.
    pub(super) fn rounds(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<(), Error> {
        match self.account.strategy {
            Strategy::PreCopy | Strategy::Hybrid => {}
            Strategy::PostCopy => return self.survey(talk, leaving),
            _ => return Ok(()),
        }
        let (source, images) = (self.source, self.images);
        let (mut options, limits) = (self.plan.options.rounds, &self.plan.options.limits);
        let account = &mut self.account;
        let ready = self.phases.took_of(Phase::Ready);
        if account.strategy == Strategy::Hybrid {
            options.on_timeout = OnTimeout::PostCopy;
            options.most = options.most.min(HYBRID_ROUNDS);
        }
        let points = self.phases.points();
        let limit = match options.on_timeout {
            OnTimeout::Abort | OnTimeout::PostCopy => options.timeout.saturating_mul(GRACE),
            OnTimeout::Force | OnTimeout::Throttle => {
                options.timeout.saturating_mul(LONG_GRACE).saturating_add(limits.files)
            }
        };
        self.phases.run(Phase::Rounds, limit, |deadline| {
            let mut pace = Pace::new(options, ready);
            let mut scanned = None;
            loop {
                let begun = Instant::now();
                let round =
                    leaving.round(Pass::Send).map_err(Error::end("track the application's memory"))?;
                let number = u32::try_from(account.rounds.len() + 1).unwrap_or(u32::MAX);
                points.at(&format!("round-{number}"))?;
                // A plan is small, and taken at once by whoever is still there.
                let bytes = send(
                    talk,
                    images.server,
                    &round,
                    false,
                    Deadline::after(limits.ready).or(Some(deadline)),
                )?;
                let aside = hear_done(talk, deadline)?;
                let took = begun.elapsed();
                let sample = Sample {
                    bytes,
                    took,
                    scan: round.scan,
                    transfer: took.saturating_sub(round.scan).saturating_sub(aside),
                    since_scan: scanned.map(|then| begun.duration_since(then)),
                    tracked: round.tracked,
                    processes: round.processes,
                };
                scanned = Some(begun);
                let outlook = pace.learn(&sample);
                let told = told(number, &sample, &outlook, round.scan);
                account.rounds.push(told);
                account.predicted_freeze_ms = Some(milliseconds(outlook.freeze));
                source.progress.event(Event::Round(told));
                match pace.next(&outlook) {
                    Next::Round => {}
                    Next::Throttle(percent) => {
                        leaving.throttle(percent).map_err(Error::end("slow the application down"))?;
                        account.throttled = percent;
                        source.progress.event(Event::Throttled { percent });
                    }
                    Next::Freeze(end) => {
                        account.rounds_end = Some(end);
                        account.forecasts = forecasts(&account.rounds, &sample, &outlook, options);
                        return Ok(());
                    }
                    Next::GiveUp => return Err(does_not_converge(&outlook, pace.throttled())),
                }
            }
        })
    }

    /// What there is becomes known; only what processes share travels.
    fn survey(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<(), Error> {
        let images = self.images;
        let (ready, timeout) = (self.plan.options.limits.ready, self.plan.options.rounds.timeout);
        self.phases.run(Phase::Rounds, timeout.saturating_mul(GRACE), |deadline| {
            let round = leaving.round(Pass::Owe).map_err(Error::end("track the application's memory"))?;
            // A plan is small, and taken at once by whoever is still there.
            let taken = Deadline::after(ready).or(Some(deadline));
            send(talk, images.server, &round, false, taken)?;
            hear_done(talk, deadline).map(drop)
        })
    }

    /// Whether what is left in the freeze is owed.
    fn pass(&self) -> Pass {
        match (self.account.strategy, self.account.rounds_end) {
            (Strategy::PostCopy | Strategy::Hybrid, _) | (_, Some(report::RoundsEnd::Owed)) => Pass::Owe,
            _ => Pass::Send,
        }
    }

    /// What was written since the last round begins to travel; the dump goes on meanwhile.
    pub(super) fn last_round(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<(), Error> {
        if !self.account.strategy.has_rounds() {
            return Ok(());
        }
        let images = self.images;
        let pass = self.pass();
        let account = &mut self.account;
        self.phases.run(Phase::LastRound, self.plan.options.limits.frozen, |deadline| {
            let round = leaving.round(pass).map_err(Error::end("find what the application wrote last"))?;
            account.last_round = send(talk, images.server, &round, true, deadline)?;
            let owed = round.owed.iter().flat_map(|owed| owed.images());
            account.owed = owed.map(|(_, size)| size).sum();
            if account.owed > 0 {
                // It was shown last.
                let image = images.server.shown().saturating_sub(1);
                let token = account.token.clone();
                account.serving = Some(Serving { token, streams: account.streams, image });
            }
            Ok(())
        })
    }

    /// All memory at the destination is compared with what stands still here.
    pub(super) fn verify(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<(), Error> {
        if !self.plan.options.verify {
            return Ok(());
        }
        let account = &mut self.account;
        self.phases.run(Phase::Verify, self.plan.options.limits.frozen, |deadline| {
            let fingerprint = leaving.fingerprint().map_err(Error::end("read the application's memory"))?;
            talk.say(&Message::Verify, &[], deadline)?;
            stream(talk, &fingerprint, deadline)?;
            let pages = talk.expect("verified", deadline, |message| match message {
                Message::Verified { pages } => Some(pages),
                _ => None,
            })?;
            account.verified_pages = Some(pages);
            Ok(())
        })
    }
}

/// Tells the destination of a round, whose content it asks for then. How many bytes that is.
fn send(
    talk: &mut Talk,
    server: &crate::images::MemoryServer<'_>,
    round: &Round,
    last: bool,
    deadline: Deadline,
) -> Result<u64, Error> {
    let memory = server.show(&round.memory);
    let bytes = memory.iter().map(|(_, size)| size).sum();
    let owed = round.owed.as_ref().map(|owed| server.show(owed)).unwrap_or_default();
    talk.say(&Message::Round { last, memory, owed }, &[], deadline)?;
    stream(talk, &round.plan, deadline)?;
    Ok(bytes)
}

fn stream(talk: &mut Talk, content: &[u8], deadline: Deadline) -> Result<(), Error> {
    let mut out = StreamOut::new(talk, deadline);
    let written = out.write_all(content);
    out.finish(written.map_err(|error| Error::end("send a plan")(error.into())))
}

/// Waits until a round is in its place. How long the destination did something else than to take it.
fn hear_done(talk: &mut Talk, deadline: Deadline) -> Result<Duration, Error> {
    talk.expect("round-done", deadline, |message| match message {
        Message::RoundDone { aside_us } => Some(Duration::from_micros(aside_us)),
        _ => None,
    })
}

fn told(number: u32, sample: &Sample, outlook: &Outlook, scan: Duration) -> report::Round {
    report::Round {
        round: number,
        bytes: sample.bytes,
        scan_ms: milliseconds(scan),
        milliseconds: milliseconds(sample.took),
        rate: whole(outlook.rate),
        dirty_rate: outlook.dirty_rate.map(whole),
        predicted_freeze_ms: Some(milliseconds(outlook.freeze)),
    }
}

/// How it would go by each strategy, with what the rounds have shown of memory and link.
fn forecasts(
    rounds: &[report::Round],
    last: &Sample,
    outlook: &Outlook,
    asked: Rounds,
) -> Vec<report::Forecast> {
    let known = Known {
        processes: last.processes,
        tracked: last.tracked,
        first_round: rounds.first().map_or(0, |round| round.bytes),
        dirty_rate: outlook.dirty_rate.map_or(0, whole),
        scan: last.scan,
    };
    let told = |(strategy, forecast): (Strategy, Forecast)| report::Forecast {
        strategy,
        freeze_ms: milliseconds(forecast.freeze),
        total_ms: milliseconds(forecast.total),
    };
    by_strategy(&known, whole(outlook.rate), asked).into_iter().map(told).collect()
}

fn does_not_converge(outlook: &Outlook, throttled: u32) -> Error {
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    Error::DoesNotConverge {
        dirty: mib(outlook.dirty_rate.unwrap_or_default()),
        link: mib(outlook.rate),
        freeze: outlook.freeze.as_secs_f64(),
        throttled,
        instead: OnTimeout::Throttle,
    }
}
