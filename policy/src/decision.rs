//! The answer.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which checkpoint a restore is from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Wanted {
    /// The last complete one of the container.
    #[default]
    Latest,
    /// The one of this name.
    Named(String),
}

impl From<String> for Wanted {
    fn from(text: String) -> Self {
        if text == "latest" {
            return Self::Latest;
        }
        Self::Named(text)
    }
}

impl From<Wanted> for String {
    fn from(wanted: Wanted) -> Self {
        wanted.to_string()
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// What becomes of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Action {
    /// Its command is run again.
    Scratch,
    /// It is restored.
    Restore {
        /// From which checkpoint.
        #[serde(default)]
        checkpoint: Wanted,
    },
    /// It does not come back by itself; the container stays up.
    Standby,
    /// The container ends with the application's code, as on runc.
    Exit,
}

impl Action {
    /// Its name, in files and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Restore { .. } => "restore",
            Self::Standby => "standby",
            Self::Exit => "exit",
        }
    }

    /// Whether an application comes up.
    #[must_use]
    pub fn restarts(&self) -> bool {
        matches!(self, Self::Scratch | Self::Restore { .. })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restore { checkpoint } => write!(f, "restore({checkpoint})"),
            other => f.write_str(other.name()),
        }
    }
}

/// What is to be done, when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// After this time, in milliseconds.
    #[serde(rename = "delay_ms", with = "milliseconds")]
    pub delay: Duration,
    /// The end, and the rule that it fits.
    pub reason: String,
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
