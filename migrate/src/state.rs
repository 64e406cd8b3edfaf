//! What each side has decided, in the order in which it may be decided. The journal keeps it.
//!
//! ```text
//!  source        Preparing ──► Frozen ──► Deciding ──► Committed ──► Done
//!                    │            │           │ └─────► Serving ───────┘
//!                    ▼            ▼           ▼
//!                 Aborted ◄──── Resuming ◄────┘ the destination has aborted
//!
//!  destination   Preparing ──► Held ──► Committed ──► Released
//!                    │           │ └──► Filling ──────┘
//!                    ▼           ▼         └──► Lost
//!                 Abandoning ────┴──► Abandoned
//! ```
//!
//! The source may run on in `Preparing`, `Frozen` and `Resuming`; in `Deciding` only the destination knows; from `Committed`
//! on it never runs again. The destination runs from `Committed` on, and only then.

use serde::{Deserialize, Serialize};

/// What one side of a migration has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Either: nothing stands still because of it.
    Preparing,
    /// Source: stopped, or about to be.
    Frozen,
    /// Source: the commit is sent, or about to be. It stays stopped until the destination's decision is known.
    Deciding,
    /// Source: its application is to run on, and may not yet.
    Resuming,
    /// Source: nothing has happened.
    Aborted,
    /// Source: its application is killed.
    Done,
    /// Destination: restored, and held.
    Held,
    /// Either: the application lives on the destination.
    Committed,
    /// Source: the application lives on the destination, which is owed memory of it.
    Serving,
    /// Destination: the application lives here, and memory is owed to it.
    Filling,
    /// Destination: it lived here, and was killed: the memory that it was owed does not come any more.
    Lost,
    /// Destination: it runs.
    Released,
    /// Destination: what is restored is to be killed.
    Abandoning,
    /// Destination: the container is in standby.
    Abandoned,
}

/// A step that must not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a migration that is {from:?} cannot become {to:?}")]
pub struct IllegalStep {
    /// Where it is.
    pub from: State,
    /// Where it was to go.
    pub to: State,
}

impl State {
    /// The next state.
    ///
    /// # Errors
    /// When it must not follow.
    pub fn step(self, to: Self) -> Result<Self, IllegalStep> {
        use State::{
            Abandoned, Abandoning, Aborted, Committed, Deciding, Done, Filling, Frozen, Held, Lost,
            Preparing, Released, Resuming, Serving,
        };
        match (self, to) {
            (Preparing, Frozen | Aborted | Held | Abandoning)
            | (Frozen, Deciding | Resuming)
            | (Deciding, Committed | Serving | Resuming)
            | (Serving, Done)
            | (Resuming, Aborted)
            | (Held, Committed | Filling | Abandoning)
            | (Filling, Released | Lost)
            | (Committed, Done | Released)
            | (Abandoning, Abandoned) => Ok(to),
            (from, to) => Err(IllegalStep { from, to }),
        }
    }

    /// Nothing is left to be done.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Aborted | Self::Done | Self::Released | Self::Lost | Self::Abandoned)
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, *};

    const ALL: [State; 14] = [
        Preparing, Frozen, Deciding, Resuming, Aborted, Done, Held, Committed, Serving, Filling, Lost,
        Released, Abandoning, Abandoned,
    ];

    /// All states that can follow, directly or not.
    fn reachable(from: State) -> Vec<State> {
        let mut found = vec![from];
        let mut next = 0;
        while next < found.len() {
            let follow = ALL.into_iter().filter(|to| found[next].step(*to).is_ok());
            let new: Vec<_> = follow.filter(|to| !found.contains(to)).collect();
            found.extend(new);
            next += 1;
        }
        found
    }

    #[test]
    fn what_is_committed_is_never_taken_back() {
        for state in [Committed, Serving, Filling] {
            let after = reachable(state);
            assert!(
                ![Resuming, Aborted, Abandoning, Abandoned].iter().any(|state| after.contains(state)),
                "{after:?}"
            );
        }
    }

    #[test]
    fn what_is_aborted_is_never_committed() {
        for state in [Resuming, Aborted, Abandoning, Abandoned] {
            let after = reachable(state);
            assert!(![Committed, Serving, Filling].iter().any(|state| after.contains(state)), "{state:?}");
        }
    }

    #[test]
    fn every_state_ends() {
        for state in ALL {
            assert!(reachable(state).iter().any(|state| state.is_final()), "{state:?}");
            assert_eq!(state.is_final(), reachable(state).len() == 1, "{state:?}");
        }
    }
}
