//! The rounds of memory, in lines: as they go, and all together.

use fastmig_api::migration::{Forecast, MigrationReport, Round, RoundsEnd};
use fastmig_api::request::Strategy;

use crate::commands::figures::{bytes, mebibytes, milliseconds};

/// One that has travelled: what was sent, how fast, how fast it is written meanwhile, and what a freeze would take now.
pub(in crate::commands) fn line(round: &Round) -> String {
    let name = format!("round {}", round.round);
    let sent = format!(
        "{name:<15} {:>9}  {:>10} MiB at {:>7} MiB/s",
        milliseconds(round.ms),
        mebibytes(round.bytes),
        mebibytes(round.rate)
    );
    let Some(dirty) = round.dirty_rate else { return sent };
    let freeze = round.predicted_freeze_ms.map(|ms| format!(", freeze now {}", milliseconds(ms)));
    format!("{sent}, written {:>7} MiB/s{}", mebibytes(dirty), freeze.unwrap_or_default())
}

/// How its memory is to travel, and why so.
pub(in crate::commands) fn chosen(strategy: Strategy, why: &str) -> String {
    format!("strategy {strategy}: {why}")
}

/// It gets less of the processor.
pub(in crate::commands) fn throttled(percent: u32) -> String {
    format!("it writes faster than its memory travels: {percent}% of the processor is taken from it")
}

/// It runs there, and its memory follows it.
pub(in crate::commands) fn follows(owed: u64, done: u64, faults: u64, ms: u64) -> String {
    let (done, owed) = (mebibytes(done), mebibytes(owed));
    format!(
        "it runs there: {done} of {owed} MiB have followed after {}, it waited {faults} times",
        milliseconds(ms)
    )
}

/// What the rounds came to; only how memory travelled where there were none.
pub(super) fn all_together(report: &MigrationReport) -> String {
    let mut text = while_it_ran_here(report);
    if report.owed_bytes > 0 {
        text.push_str(&format!("\nmemory: {} followed it", bytes(report.owed_bytes)));
        if let Some(filled) = report.filled_ms {
            text.push_str(&format!(" within {}", milliseconds(filled)));
        }
        text.push_str(&format!(", of which it waited for some {} times", report.owed_faults));
    }
    text.push_str(&expected(report));
    text
}

/// What each strategy was expected to cost: how long it stands still, and all of it.
fn expected(report: &MigrationReport) -> String {
    let one = |forecast: &Forecast| {
        let [freeze, total] = [forecast.freeze_ms, forecast.total_ms].map(milliseconds);
        format!("{} {freeze} of {total}", forecast.strategy)
    };
    let all: Vec<_> = report.forecasts.iter().map(one).collect();
    if all.is_empty() {
        return String::new();
    }
    format!("\nexpected to stand still: {}", all.join(", "))
}

fn while_it_ran_here(report: &MigrationReport) -> String {
    let mut text = chosen(report.strategy, &report.why);
    if report.rounds.is_empty() {
        return text;
    }
    let sent = report.rounds.iter().fold(0u64, |sum, round| sum.saturating_add(round.bytes));
    let plural = if report.rounds.len() == 1 { "round" } else { "rounds" };
    text.push_str(&format!(
        "\nmemory: {} in {} {plural} while it ran, {} while it stood still",
        bytes(sent),
        report.rounds.len(),
        bytes(report.last_round_bytes)
    ));
    if report.rounds_end == Some(RoundsEnd::Forced) {
        text.push_str("; it had to be stopped, for it writes faster than its memory travels");
    }
    if report.throttled > 0 {
        text.push_str(&format!("; {}% of the processor was taken from it", report.throttled));
    }
    text
}
