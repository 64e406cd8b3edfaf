//! What one rule asks of the facts: all that it names must hold.

use std::ops::RangeInclusive;
use std::time::Duration;

use regex::bytes::Regex;
use serde::{Deserialize, Deserializer};

use crate::facts::{Facts, Phase};
use crate::signals;

/// Everything that a rule names; what is left out always holds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    pub(crate) code: Option<Codes>,
    pub(crate) signal: Option<Signals>,
    pub(crate) oom: Option<bool>,
    pub(crate) ran_below: Option<Duration>,
    pub(crate) ran_above: Option<Duration>,
    pub(crate) failures: Option<u32>,
    pub(crate) phase: Option<Vec<Phase>>,
    #[serde(skip)]
    pub(crate) output: Option<Regex>,
}

impl Condition {
    /// Whether all of it holds; with it the line of the output that did, if one was asked for.
    pub(crate) fn holds<'a>(&self, facts: &'a Facts) -> Option<Option<&'a [u8]>> {
        let code = |codes: &Codes| facts.code.is_some_and(|code| codes.0.iter().any(|r| r.contains(&code)));
        let signal = |signals: &Signals| facts.signal.is_some_and(|signal| signals.0.contains(&signal));
        let plain = self.code.as_ref().is_none_or(code)
            && self.signal.as_ref().is_none_or(signal)
            && self.oom.is_none_or(|oom| oom == facts.oom)
            && self.ran_below.is_none_or(|time| facts.ran < time)
            && self.ran_above.is_none_or(|time| facts.ran >= time)
            && self.failures.is_none_or(|failures| facts.failures >= failures)
            && self.phase.as_ref().is_none_or(|phases| phases.contains(&facts.phase));
        if !plain {
            return None;
        }
        match &self.output {
            None => Some(None),
            Some(pattern) => facts.output.find(pattern).map(Some),
        }
    }
}

/// Exit codes: `137`, `"128..159"`, or a list of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Codes(Vec<RangeInclusive<u8>>);

/// Signals: `"SEGV"`, `11`, or a list of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signals(Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Word),
    Many(Vec<Word>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Number(i64),
    Text(String),
}

impl OneOrMany {
    /// Each of them as text; one kind of error for whatever else is there.
    fn words<'de, D: Deserializer<'de>>(deserializer: D, expected: &str) -> Result<Vec<String>, D::Error> {
        let all = Self::deserialize(deserializer)
            .map_err(|_| serde::de::Error::custom(format!("expected {expected}")))?;
        let text = |word| match word {
            Word::Number(number) => number.to_string(),
            Word::Text(text) => text,
        };
        Ok(match all {
            Self::One(word) => vec![text(word)],
            Self::Many(words) => words.into_iter().map(text).collect(),
        })
    }
}

impl<'de> Deserialize<'de> for Codes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "an exit code from 0 to 255, a range such as \"128..159\", or a list of them";
        let words = OneOrMany::words(deserializer, EXPECTED)?;
        let ranges: Option<Vec<_>> = words.iter().map(|word| range(word)).collect();
        ranges.map(Self).ok_or_else(|| serde::de::Error::custom(format!("expected {EXPECTED}")))
    }
}

/// Both ends belong to it.
fn range(text: &str) -> Option<RangeInclusive<u8>> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

impl<'de> Deserialize<'de> for Signals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = OneOrMany::words(deserializer, "a signal such as \"SEGV\" or 11, or a list of them")?;
        let numbers: Result<_, _> = words.iter().map(|word| signals::number(word)).collect();
        numbers.map(Self).map_err(serde::de::Error::custom)
    }
}

/// One phase or several.
pub(crate) fn phases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Phase>>, D::Error> {
    let words = OneOrMany::words(deserializer, "a phase or a list of phases")?;
    let all: Result<_, _> = words.iter().map(|word| word.parse()).collect();
    all.map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_both_their_ends() {
        assert_eq!(range("128..159"), Some(128..=159));
        assert_eq!(range("7"), Some(7..=7));
        for text in ["", "256", "9..1", "-1", "1..", "a..b"] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn all_that_is_named_must_hold() {
        let condition = Condition {
            code: Some(Codes(vec![1..=10])),
            failures: Some(2),
            ran_below: Some(Duration::from_secs(5)),
            ..Condition::default()
        };
        let fits = Facts::exited(3).failed(2).after(Duration::from_secs(1));
        assert!(condition.holds(&fits).is_some());
        for other in [
            Facts::exited(11).failed(2).after(Duration::from_secs(1)),
            fits.clone().failed(1),
            fits.clone().after(Duration::from_secs(5)),
            Facts { code: None, ..fits },
        ] {
            assert!(condition.holds(&other).is_none(), "{other}");
        }
        assert!(Condition::default().holds(&Facts::not_restored()).is_some());
    }
}
