//! What is known of an application's end.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::output::Output;

/// What was being done to the application when it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing: it ran.
    #[default]
    Normal,
    /// A checkpoint of it was being taken.
    Checkpointing,
    /// It was being restored, and did not come up.
    Restoring,
    /// It was on its way to another host.
    Migrating,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Checkpointing => "checkpointing",
            Self::Restoring => "restoring",
            Self::Migrating => "migrating",
        })
    }
}

impl std::str::FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Normal, Self::Checkpointing, Self::Restoring, Self::Migrating];
        let found = all.into_iter().find(|phase| phase.to_string() == text);
        found.ok_or_else(|| "give normal, checkpointing, restoring or migrating".into())
    }
}

/// How an application ended, and what led there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// As a shell reports it: its exit code, or 128 and the number of the signal that killed it. None when it never ran: a
    /// restore that failed.
    pub code: Option<u8>,
    /// The signal that killed it.
    pub signal: Option<u8>,
    /// Whether the kernel killed for want of memory while it ran.
    pub oom: bool,
    /// From its start, or its restore, to its end.
    pub ran: Duration,
    /// How often it has failed within the policy's window, with this time. An end with code 0 is no failure.
    pub failures: u32,
    /// What was being done to it.
    pub phase: Phase,
    /// What it said last.
    pub output: Output,
}

impl Facts {
    /// An application that has ended with a shell's `code`; above 128 a signal has killed it.
    #[must_use]
    pub fn exited(code: u8) -> Self {
        let signal = code.checked_sub(128).filter(|number| (1..=64).contains(number));
        Self { code: Some(code), signal, ..Self::default() }
    }

    /// A restore that failed.
    #[must_use]
    pub fn not_restored() -> Self {
        Self { phase: Phase::Restoring, ..Self::default() }
    }

    /// It ran for `time`.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { ran: time, ..self }
    }

    /// It has failed so often.
    #[must_use]
    pub fn failed(self, failures: u32) -> Self {
        Self { failures, ..self }
    }

    /// Whether this end counts as a failure.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.code != Some(0) || self.oom
    }
}

/// In a few words, for a reason.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (None, _) => write!(f, "it could not be restored")?,
            (Some(_), Some(signal)) => write!(f, "killed by signal {signal}")?,
            (Some(code), None) => write!(f, "exit code {code}")?,
        }
        if self.oom {
            write!(f, ", out of memory")?;
        }
        if self.code.is_some() {
            write!(f, " after {}", crate::duration::Short(self.ran))?;
        }
        if self.phase != Phase::Normal && self.code.is_some() {
            write!(f, ", {}", self.phase)?;
        }
        if self.failures > 1 {
            write!(f, ", failure {}", self.failures)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_a_few_words() {
        let facts = Facts::exited(137).after(Duration::from_millis(1500)).failed(3);
        assert_eq!(facts.to_string(), "killed by signal 9 after 1.5s, failure 3");
        assert_eq!(Facts::exited(0).to_string(), "exit code 0 after 0.0s");
        assert_eq!(Facts::not_restored().to_string(), "it could not be restored");
        let oom = Facts { oom: true, phase: Phase::Checkpointing, ..Facts::exited(137) };
        assert_eq!(oom.to_string(), "killed by signal 9, out of memory after 0.0s, checkpointing");
    }

    #[test]
    fn only_a_good_end_is_no_failure() {
        assert!(!Facts::exited(0).is_failure());
        assert!(Facts::exited(1).is_failure() && Facts::not_restored().is_failure());
        assert_eq!(Facts::exited(128).signal, None);
        assert_eq!(Facts::exited(255).signal, None);
    }
}
