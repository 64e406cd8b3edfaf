//! Names of checkpoints: good as a directory, as an object's key and as a registry's tag.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::macros::format_description;
use time::OffsetDateTime;

use crate::StoreError;

/// What a registry's tag may have.
const LONGEST: usize = 128;

/// What is left of a container's name, so that the time fits behind it.
const LONGEST_CONTAINER: usize = 96;

/// The name of a stored checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// A name for a checkpoint of `container` that is taken now.
    ///
    /// # Errors
    /// When the clock is outside of what can be written.
    pub fn now(container: &str) -> Result<Self, StoreError> {
        let format = format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z");
        let time = OffsetDateTime::now_utc().format(format).unwrap_or_default();
        let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let container: String =
            container.chars().map(|c| if is_good(c) { c } else { '-' }).take(LONGEST_CONTAINER).collect();
        format!("{}-{time}", container.trim_start_matches(['.', '-'])).trim_start_matches('-').parse()
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty()
            || text.len() > LONGEST
            || text.starts_with(['.', '-'])
            || !text.chars().all(is_good)
        {
            return Err(StoreError::Name { name: text.chars().take(LONGEST).collect() });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(name.parse::<Name>().is_err(), "{name:?}");
        }
        for name in ["web", "web-1", "_x", "7.2", &"x".repeat(128)] {
            assert!(name.parse::<Name>().is_ok(), "{name:?}");
        }
    }

    #[test]
    fn any_container_gives_a_name() {
        for container in ["web", "ns/pod/web", "..", "", &"x".repeat(500)] {
            let name = Name::now(container).unwrap();
            assert!(name.as_str().ends_with('Z'), "{name}");
        }
        assert!(Name::now("ns/pod/web").unwrap().as_str().starts_with("ns-pod-web-20"));
    }
}
