//! What a move would cost now, in words.

use std::time::Duration;

use fastmig_engine::Cost;
use fastmig_migrate::options::Strategy;
use serde_json::{json, Value};

use super::forecast::{milliseconds, Forecast};
use crate::commands::figures::{self, bytes, table};

/// How long an application is looked at.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// Whether memory can travel in rounds.
pub(super) fn tracker_line(tracker: &Result<&str, String>) -> String {
    match tracker {
        Ok(how) => format!("memory can travel while an application runs: what it writes is seen by {how}"),
        Err(reason) => format!("memory can only travel while an application stands still: {reason}"),
    }
}

pub(super) fn as_text(cost: &Cost, forecasts: &[Forecast]) -> String {
    let others = match cost.untracked {
        0 => String::new(),
        count => format!(", {count} of them not to be tracked"),
    };
    let shared = match cost.shared {
        0 => String::new(),
        shared => format!(" ({} of it shared)", bytes(shared)),
    };
    let processes = if cost.processes == 1 { "process" } else { "processes" };
    let seen = format!(
        "a move now: {} at first{shared}, in {} {processes}{others}; then {}/s are written (seen over {}, no process was stopped for more \
         than {:.2} ms)",
        bytes(cost.first_round),
        cost.processes,
        bytes(cost.dirty_rate),
        figures::milliseconds(milliseconds(cost.window)),
        cost.stopped.as_secs_f64() * 1e3
    );
    let rows: Vec<_> = forecasts.iter().map(row).collect();
    format!("{seen}\n{}", table(["LINK", "STRATEGY", "ROUNDS", "FREEZE", "ALL MEMORY MOVED", ""], &rows))
}

fn row(forecast: &Forecast) -> [String; 6] {
    let [freeze, total] =
        [forecast.freeze, forecast.total].map(|time| figures::milliseconds(milliseconds(time)));
    let link = format!("{} MB/s", forecast.link);
    [link, forecast.strategy().into(), forecast.rounds.to_string(), freeze, total, remark(forecast).into()]
}

/// What is to be known before it is asked for.
const fn remark(forecast: &Forecast) -> &'static str {
    match (forecast.strategy, forecast.converges) {
        (Strategy::PreCopy, true) => "unasked",
        (Strategy::PreCopy, false) => "it writes too fast for that link; see migrate --on-timeout",
        (Strategy::PostCopy | Strategy::Hybrid, _) => "needs this host until all memory has moved",
        _ => "",
    }
}

pub(super) fn as_json(cost: &Cost, forecasts: &[Forecast]) -> Value {
    json!({
        "tracker": cost.tracker,
        "processes": cost.processes,
        "untracked": cost.untracked,
        "tracked": cost.tracked,
        "first_round": cost.first_round,
        "shared": cost.shared,
        "dirty": cost.dirty,
        "dirty_rate": cost.dirty_rate,
        "window_ms": milliseconds(cost.window),
        "stopped_us": u64::try_from(cost.stopped.as_micros()).unwrap_or(u64::MAX),
        "forecasts": forecasts.iter().map(Forecast::as_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::forecast::tests::cost;
    use super::*;

    #[test]
    fn a_cost_is_a_line_and_a_table_of_links() {
        let cost = cost(1 << 30, 120_000_000);
        let forecasts = [110, 1000].map(|link| Forecast::each(&cost, link)).concat();
        let text = as_text(&cost, &forecasts);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 10, "{text}");
        assert!(
            lines[0].starts_with("a move now: 1.0 GiB at first, in 3 processes; then 114.4 MiB/s"),
            "{text}"
        );
        let shared = as_text(&Cost { shared: 1 << 28, ..cost.clone() }, &[]);
        assert!(
            shared.starts_with("a move now: 1.0 GiB at first (256.0 MiB of it shared), in 3"),
            "{shared}"
        );
        assert!(lines[0].ends_with("no process was stopped for more than 0.31 ms)"), "{text}");
        assert!(lines[2].starts_with("110 MB/s") && lines[2].contains("--on-timeout"), "{text}");
        assert!(lines[6].starts_with("1000 MB/s") && lines[6].contains("unasked"), "{text}");
        assert!(lines[5].contains("post-copy") && lines[5].contains("needs this host"), "{text}");
        let json = as_json(&cost, &forecasts);
        assert_eq!(json["forecasts"][4]["link_mb_s"], 1000);
        assert_eq!(json["forecasts"][1]["strategy"], "stop-copy");
        assert_eq!(json["forecasts"][0]["converges"], false);
        assert_eq!((&json["first_round"], &json["stopped_us"]), (&json!(1u64 << 30), &json!(310)));
    }

    #[test]
    fn a_host_without_a_tracker_says_why() {
        assert!(tracker_line(&Ok("soft-dirty bits")).ends_with("by soft-dirty bits"));
        assert!(tracker_line(&Err("too old".into())).ends_with("stands still: too old"));
    }
}
