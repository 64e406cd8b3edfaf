//! Times as people write them: `500ms`, `10s`, `5m`, `2h`, `1d`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Whole numbers of one unit.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// More is a mistake.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Reads a time.
///
/// # Errors
/// What a time looks like, when it is none.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: give one such as 500ms, 10s, 5m, 2h or 1d, up to a year");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::from_millis(number.checked_mul(milliseconds).ok_or_else(wrong)?);
    if time > LONGEST {
        return Err(wrong());
    }
    Ok(time)
}

/// For serde.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// For serde, where a time may be left out.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    deserialize(deserializer).map(Some)
}

/// A time in seconds with one decimal.
pub(crate) struct Short(pub(crate) Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1d", 86_400_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5s", "1w", "400d", "99999999999999999999s", "1 s"] {
            assert!(parse(text).unwrap_err().contains("no time"), "{text}");
        }
    }
}
