//! The states of a task and of its exec processes, and the legal moves between them.
//!
//! ```text
//! Created --start--> Running <--pause/resume--> Paused
//!    |                  |                          |
//!    +------exit--------+-----------exit-----------+--> Stopped --delete--> Deleted
//!    +------delete (a task that never ran is killed)----------------------> Deleted
//! ```
//!
//! Exec processes take the same way; nothing pauses them but their container.

use std::fmt;

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It is there, its command has not begun.
    Created,
    /// Its command runs (or, in a warm container, waits for one).
    Running,
    /// It is frozen.
    Paused,
    /// It has ended.
    Stopped,
    /// Nothing of it is left.
    Deleted,
}

/// What moves a process from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Start,
    Pause,
    Resume,
    Exit,
    Delete,
}

/// What can be done to a process without moving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Exec,
    Checkpoint,
    Update,
}

/// A step or an action that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {what} a {state} {noun}", noun = noun(what))]
pub(crate) struct Refused {
    what: &'static str,
    state: State,
}

/// The stock shim's choice of words.
fn noun(what: &str) -> &'static str {
    match what {
        EXEC => "state",
        PAUSE => "container",
        _ => "process",
    }
}

const EXEC: &str = "exec in";
const PAUSE: &str = "pause";

impl State {
    /// The state after `step`.
    pub(crate) fn after(self, step: Step) -> Result<Self, Refused> {
        match (self, step) {
            (Self::Created, Step::Start) | (Self::Paused, Step::Resume) => Ok(Self::Running),
            (Self::Running, Step::Pause) => Ok(Self::Paused),
            (Self::Created | Self::Running | Self::Paused, Step::Exit) => Ok(Self::Stopped),
            (Self::Created | Self::Stopped, Step::Delete) => Ok(Self::Deleted),
            (state, step) => Err(Refused { what: step.name(), state }),
        }
    }

    /// Whether `action` can be done now.
    pub(crate) fn permits(self, action: Action) -> Result<(), Refused> {
        let permitted = match action {
            Action::Exec => matches!(self, Self::Running),
            Action::Checkpoint => matches!(self, Self::Running | Self::Paused),
            Action::Update => matches!(self, Self::Created | Self::Running | Self::Paused),
        };
        if permitted {
            return Ok(());
        }
        Err(Refused { what: action.name(), state: self })
    }
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => PAUSE,
            Self::Resume => "resume",
            Self::Exit => "end",
            Self::Delete => "delete",
        }
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Exec => EXEC,
            Self::Checkpoint => "checkpoint",
            Self::Update => "update",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] =
        [State::Created, State::Running, State::Paused, State::Stopped, State::Deleted];
    const STEPS: [Step; 5] = [Step::Start, Step::Pause, Step::Resume, Step::Exit, Step::Delete];

    #[test]
    fn the_legal_moves_are_these_and_no_others() {
        let legal: Vec<_> = STATES
            .iter()
            .flat_map(|from| STEPS.iter().map(move |step| (*from, *step)))
            .filter_map(|(from, step)| Some((from, step, from.after(step).ok()?)))
            .collect();
        assert_eq!(
            legal,
            [
                (State::Created, Step::Start, State::Running),
                (State::Created, Step::Exit, State::Stopped),
                (State::Created, Step::Delete, State::Deleted),
                (State::Running, Step::Pause, State::Paused),
                (State::Running, Step::Exit, State::Stopped),
                (State::Paused, Step::Resume, State::Running),
                (State::Paused, Step::Exit, State::Stopped),
                (State::Stopped, Step::Delete, State::Deleted),
            ]
        );
    }

    #[test]
    fn a_refusal_reads_as_the_stock_shims() {
        let refused = State::Running.after(Step::Start).unwrap_err();
        assert_eq!(refused.to_string(), "cannot start a running process");
        let refused = State::Running.after(Step::Delete).unwrap_err();
        assert_eq!(refused.to_string(), "cannot delete a running process");
        let refused = State::Paused.permits(Action::Exec).unwrap_err();
        assert_eq!(refused.to_string(), "cannot exec in a paused state");
    }

    #[test]
    fn a_paused_task_is_checkpointed_but_takes_no_exec() {
        assert_eq!(State::Paused.permits(Action::Checkpoint), Ok(()));
        assert!(State::Paused.permits(Action::Exec).is_err());
        assert!(State::Stopped.permits(Action::Update).is_err());
    }
}
