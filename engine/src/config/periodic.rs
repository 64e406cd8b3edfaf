//! The table `[periodic]`: checkpoints that the daemon takes by itself, at their times.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sources::Sources;
use super::ConfigError;
use crate::clock::parse_duration;

/// No checkpoints by themselves.
pub const OFF: &str = "off";

/// What the names of periodic checkpoints begin with.
pub const PREFIX: &str = "periodic-";

/// Less would be one checkpoint without an end.
const SHORTEST: Duration = Duration::from_secs(1);

/// A year: what is rarer is not periodic.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// More of one container's are an archive: `fastmig checkpoint --every` fills one.
const MOST: u32 = 1000;

/// Checkpoints that the daemon takes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Periodic {
    /// The time between two of a container that says nothing itself; `off` for none.
    pub every: String,
    /// How many of a container stay.
    pub keep: u32,
    /// Whether what the application wrote in its root file system is in them.
    pub files: bool,
    /// Bytes of disk that those of all containers may take; 0 for no bound.
    pub budget: u64,
}

impl Default for Periodic {
    fn default() -> Self {
        Self { every: OFF.into(), keep: 3, files: true, budget: 0 }
    }
}

/// How often a container is checkpointed, and how many of its checkpoints stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Seconds from one to the next.
    pub every: u64,
    /// How many stay.
    pub keep: u32,
}

impl Schedule {
    /// From one to the next.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.every)
    }
}

/// The time between two checkpoints.
///
/// # Errors
/// What a time looks like, when it is none.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if !(SHORTEST..=LONGEST).contains(&interval) {
        return Err("give a time from 1s to 366d".into());
    }
    Ok(interval)
}

/// The same, or nothing for `off`.
fn interval_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == OFF {
        return Ok(None);
    }
    interval(text).map(Some)
}

/// Whether so many checkpoints can stay.
#[must_use]
pub fn can_keep(count: u32) -> bool {
    (1..=MOST).contains(&count)
}

impl Periodic {
    /// Refuses values that nothing could work with.
    pub(super) fn check(&self, sources: &Sources) -> Result<(), ConfigError> {
        if let Err(remedy) = interval_or_off(&self.every) {
            let cause = format!("periodic.every is {:?}, no possible interval", self.every);
            return Err(sources.error("periodic.every", cause, format!("{remedy}, or off")));
        }
        if !can_keep(self.keep) {
            let cause = format!("periodic.keep is {}", self.keep);
            return Err(sources.error("periodic.keep", cause, format!("give a number from 1 to {MOST}")));
        }
        Ok(())
    }

    /// What holds for a container whose annotations say this of it.
    pub(crate) fn schedule(
        &self,
        every: Option<&str>,
        keep: Option<u32>,
    ) -> Result<Option<Schedule>, String> {
        let every = interval_or_off(every.unwrap_or(&self.every))?;
        Ok(every.map(|every| Schedule { every: every.as_secs(), keep: keep.unwrap_or(self.keep) }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;

    #[test]
    fn an_annotation_wins_over_the_host_s_word() {
        let host = Periodic { every: "5m".into(), ..Periodic::default() };
        let schedule = |every, keep| host.schedule(every, keep).unwrap();
        assert_eq!(schedule(None, None), Some(Schedule { every: 300, keep: 3 }));
        assert_eq!(schedule(Some("10s"), Some(1)), Some(Schedule { every: 10, keep: 1 }));
        assert_eq!(schedule(Some("off"), None), None);
        assert_eq!(Periodic::default().schedule(None, Some(2)).unwrap(), None);
        assert!(host.schedule(Some("often"), None).is_err());
    }

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(interval("1s"), Ok(SHORTEST));
        assert_eq!(interval("366d"), Ok(LONGEST));
        for text in ["0s", "367d", "5", "off"] {
            assert!(interval(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_nothing_could_work_with_is_refused_with_its_line() {
        for (text, cause) in
            [("every = \"0s\"", "interval"), ("every = \"x\"", "no time"), ("keep = 0", "from 1 to 1000")]
        {
            let text = format!("[periodic]\n{text}\n");
            let error = Config::parse(&text, Path::new("/c.toml")).unwrap_err().to_string();
            assert!(error.starts_with("/c.toml, line 2: ") && error.contains(cause), "{error}");
        }
    }
}
