//! Which protocol both hosts speak.

use serde::{Deserialize, Serialize};

use super::WireError;

/// The versions that a FastMig speaks, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versions {
    /// The oldest.
    pub(crate) oldest: u32,
    /// The newest.
    pub(crate) newest: u32,
}

/// What this one speaks.
pub(crate) const SPOKEN: Versions = Versions { oldest: 4, newest: 4 };

/// The newest version that `ours` and `theirs` have in common.
pub(crate) fn agree(ours: Versions, theirs: Versions) -> Result<u32, WireError> {
    let newest = ours.newest.min(theirs.newest);
    if newest >= ours.oldest.max(theirs.oldest) {
        return Ok(newest);
    }
    let remedy = if theirs.newest < ours.oldest { "update the other host" } else { "update this host" };
    Err(WireError::Version(format!(
        "the other host speaks protocol {}, this FastMig {}: {remedy}",
        text(theirs),
        text(ours)
    )))
}

fn text(versions: Versions) -> String {
    if versions.oldest == versions.newest {
        return versions.newest.to_string();
    }
    format!("{} to {}", versions.oldest, versions.newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn versions(oldest: u32, newest: u32) -> Versions {
        Versions { oldest, newest }
    }

    #[test]
    fn is_the_newest_common_one() {
        assert_eq!(agree(versions(1, 3), versions(2, 5)).unwrap(), 3);
        assert_eq!(agree(versions(1, 1), versions(1, 1)).unwrap(), 1);
    }

    #[test]
    fn is_refused_with_the_remedy() {
        let error = agree(versions(1, 1), versions(2, 2)).unwrap_err().to_string();
        assert_eq!(error, "the other host speaks protocol 2, this FastMig 1: update this host");
        let error = agree(versions(2, 3), versions(1, 1)).unwrap_err().to_string();
        assert_eq!(error, "the other host speaks protocol 1, this FastMig 2 to 3: update the other host");
    }
}
