//! What a certificate's owner may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The role in a certificate, as its organizational unit `fastmig:ROLE`. The prefix keeps an `admin` of somebody else's
/// directory from being ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks, and changes nothing.
    Reader,
    /// Checkpoints, restores, runs and stops applications.
    Operator,
    /// All of it.
    Admin,
    /// Another host: takes part in migrations.
    Node,
}

/// Stands before a role in a certificate.
const PREFIX: &str = "fastmig:";

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Operator, Self::Admin, Self::Node];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Node => "node",
        }
    }

    /// How it stands in a certificate.
    #[must_use]
    pub fn unit(self) -> String {
        format!("{PREFIX}{}", self.name())
    }

    /// The role that an organizational unit names, if it names one.
    #[must_use]
    pub fn of_unit(unit: &str) -> Option<Self> {
        unit.strip_prefix(PREFIX)?.parse().ok()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("{text:?} is no role: reader, operator, admin or node"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_needs_its_prefix() {
        for role in Role::ALL {
            assert_eq!(Role::of_unit(&role.unit()), Some(role));
            assert_eq!(Role::of_unit(role.name()), None);
        }
        assert_eq!(Role::of_unit("fastmig:root"), None);
    }
}
