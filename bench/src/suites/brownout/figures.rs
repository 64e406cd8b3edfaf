//! What the answers say, in shares, as a chart and as JSON.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fastmig_charts::{Axis, Lines, Mark, Series};
use serde_json::{json, Value};

/// Seconds.
pub(super) const TENTH: f64 = 0.1;
/// Tenths of a second that count as before and after.
const BEFORE: usize = 20;
const SECOND: usize = 10;

/// When what happened, since the first write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    pub(super) begun: Duration,
    pub(super) frozen: Duration,
    pub(super) thawed: Duration,
}

/// Answers in a tenth of a second as usual, and shares of that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) usual: f64,
    pub(super) rounds: Option<f64>,
    pub(super) after: f64,
}

impl Figures {
    /// Nothing when there was nothing before.
    pub(super) fn of(tenths: &[u64], moments: &Moments) -> Option<Self> {
        let [begun, frozen, thawed] = [moments.begun, moments.frozen, moments.thawed].map(index);
        let usual = mean(tenths.get(begun.checked_sub(BEFORE)?..begun)?).filter(|usual| *usual > 0.0)?;
        // Tenths of a second that are partly of something else say nothing.
        let rounds = tenths.get(begun + 1..frozen).and_then(mean).map(|rounds| rounds / usual);
        let after = mean(tenths.get(thawed + 1..=thawed + SECOND)?)? / usual;
        Some(Self { usual, rounds, after })
    }

    /// Writes `brownout-STRATEGY.svg` and `brownout-STRATEGY.json` into a directory.
    pub(super) fn write(
        &self,
        to: &Path,
        strategy: &str,
        tenths: &[u64],
        moments: &Moments,
        report: &Value,
    ) -> Result<()> {
        fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
        let from = index(moments.begun).saturating_sub(BEFORE);
        let seconds = |at: usize| (at as f64 - index(moments.begun) as f64) * TENTH;
        let points =
            tenths.iter().enumerate().skip(from).map(|(at, count)| (seconds(at), *count as f64)).collect();
        let mark = |at: Duration, name: &str| Mark {
            at: (at.as_secs_f64() - moments.begun.as_secs_f64()),
            name: name.into(),
        };
        let axis = |label: &str| Axis { label: label.into(), powers: false };
        let chart = Lines {
            title: format!("writes that redis answers while it moves by {strategy}"),
            x: axis("seconds since the move was asked for"),
            y: axis("answers in 100 ms"),
            series: vec![Series { name: String::new(), points }],
            marks: vec![
                mark(moments.begun, "asked"),
                mark(moments.frozen, "frozen"),
                mark(moments.thawed, "thawed"),
            ],
            ..Lines::default()
        };
        let told = json!({
            "usual_per_100ms": self.usual,
            "share_during_rounds": self.rounds,
            "share_in_first_second": self.after,
            "begun_s": moments.begun.as_secs_f64(),
            "frozen_s": moments.frozen.as_secs_f64(),
            "thawed_s": moments.thawed.as_secs_f64(),
            "answers_per_100ms": tenths,
            "report": report,
        });
        for (kind, content) in [("svg", chart.svg()?), ("json", format!("{told:#}\n"))] {
            let path = to.join(format!("brownout-{strategy}.{kind}"));
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn index(time: Duration) -> usize {
    usize::try_from(time.as_millis() / 100).unwrap_or(usize::MAX)
}

fn mean(tenths: &[u64]) -> Option<f64> {
    (!tenths.is_empty()).then(|| tenths.iter().sum::<u64>() as f64 / tenths.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_was_usual() {
        let tenths = [vec![100; 30], vec![90; 20], vec![0; 3], vec![80; 30]].concat();
        let at = |tenths: u64| Duration::from_millis(tenths * 100);
        let moments = Moments { begun: at(30), frozen: at(50), thawed: at(52) };
        let figures = Figures::of(&tenths, &moments).unwrap();
        assert_eq!(figures, Figures { usual: 100.0, rounds: Some(0.9), after: 0.8 });
        let short = Moments { frozen: at(31), ..moments };
        assert_eq!(Figures::of(&tenths, &short).unwrap().rounds, None);
        assert_eq!(Figures::of(&tenths[..40], &moments), None);
    }
}
