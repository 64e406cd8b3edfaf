//! The application's states and the only moves between them.
//!
//! ```text
//!              hold           run             exited
//!   Standby ---------> Held -------> Running ---------> Clearing ---> Standby
//!      |                |               ^                  ^  cleared
//!      |                +---------------|------------------+
//!      |                    give_up     | adopt            |
//!      +-------------------------> Restoring --------------+
//!              expect                            give_up
//! ```
//!
//! The container may end from any of them. Policy (what an exit means, who may ask for a move) is not here.

use crate::values::Pid;
use crate::wire::{DecodeError, OutOfRange, Packet, Reader};

/// What the container's application is doing, as its init knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// The container runs, the application does not.
    #[default]
    Standby,
    /// The application's process exists but has not executed the image's command yet.
    Held(Pid),
    /// The application runs.
    Running(Pid),
    /// A restore is about to create the application's root with this pid.
    Restoring(Pid),
    /// The application's root is gone; what it left behind is being killed.
    Clearing,
}

/// A move that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the application is {state}")]
pub struct WrongState {
    /// The state it is in, and stays in.
    pub state: State,
}

impl State {
    /// Standby to held: a process was forked for the image's command.
    ///
    /// # Errors
    /// [`WrongState`] when not in standby.
    pub fn hold(self, pid: Pid) -> Result<Self, WrongState> {
        self.standby()?;
        Ok(Self::Held(pid))
    }

    /// Held to running: the held process executed the command.
    ///
    /// # Errors
    /// [`WrongState`] when nothing is held.
    pub fn run(self) -> Result<Self, WrongState> {
        match self {
            Self::Held(pid) => Ok(Self::Running(pid)),
            state => Err(WrongState { state }),
        }
    }

    /// Standby to restoring: a restore will create `pid`.
    ///
    /// # Errors
    /// [`WrongState`] when not in standby.
    pub fn expect(self, pid: Pid) -> Result<Self, WrongState> {
        self.standby()?;
        Ok(Self::Restoring(pid))
    }

    /// Restoring to running: the restore is complete.
    ///
    /// # Errors
    /// [`WrongState`] when no restore was announced.
    pub fn adopt(self) -> Result<Self, WrongState> {
        match self {
            Self::Restoring(pid) => Ok(Self::Running(pid)),
            state => Err(WrongState { state }),
        }
    }

    /// Held or restoring to clearing: the application does not come up.
    ///
    /// # Errors
    /// [`WrongState`] when no application was about to come up.
    pub fn give_up(self) -> Result<Self, WrongState> {
        match self {
            Self::Held(_) | Self::Restoring(_) => Ok(Self::Clearing),
            state => Err(WrongState { state }),
        }
    }

    /// Running to clearing: the application's root has ended.
    ///
    /// # Errors
    /// [`WrongState`] when no application runs.
    pub fn exited(self) -> Result<Self, WrongState> {
        self.running()?;
        Ok(Self::Clearing)
    }

    /// Clearing to standby: nothing is left of the application.
    ///
    /// # Errors
    /// [`WrongState`] when nothing was being cleared.
    pub fn cleared(self) -> Result<Self, WrongState> {
        match self {
            Self::Clearing => Ok(Self::Standby),
            state => Err(WrongState { state }),
        }
    }

    /// Checks that an application may be started or restored.
    ///
    /// # Errors
    /// [`WrongState`] when not in standby.
    pub fn standby(self) -> Result<(), WrongState> {
        match self {
            Self::Standby => Ok(()),
            state => Err(WrongState { state }),
        }
    }

    /// The running application's root.
    ///
    /// # Errors
    /// [`WrongState`] when no application runs.
    pub fn running(self) -> Result<Pid, WrongState> {
        match self {
            Self::Running(pid) => Ok(pid),
            state => Err(WrongState { state }),
        }
    }

    /// The pid that belongs to the state, if one does.
    #[must_use]
    pub fn pid(self) -> Option<Pid> {
        match self {
            Self::Held(pid) | Self::Running(pid) | Self::Restoring(pid) => Some(pid),
            Self::Standby | Self::Clearing => None,
        }
    }

    pub(crate) fn put(self, packet: &mut Packet) {
        packet.put_u8(match self {
            Self::Standby => 1,
            Self::Held(_) => 2,
            Self::Running(_) => 3,
            Self::Restoring(_) => 4,
            Self::Clearing => 5,
        });
        if let Some(pid) = self.pid() {
            pid.put(packet);
        }
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::Standby),
            2 => Ok(Self::Held(Pid::take(reader)?)),
            3 => Ok(Self::Running(Pid::take(reader)?)),
            4 => Ok(Self::Restoring(Pid::take(reader)?)),
            5 => Ok(Self::Clearing),
            other => Err(OutOfRange { what: "state", value: other.into() }.into()),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Standby => write!(f, "in standby"),
            Self::Held(pid) => write!(f, "held as process {pid}"),
            Self::Running(pid) => write!(f, "running as process {pid}"),
            Self::Restoring(pid) => write!(f, "being restored as process {pid}"),
            Self::Clearing => write!(f, "ending"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Move = (&'static str, fn(State) -> Result<State, WrongState>);

    fn pid() -> Pid {
        Pid::new(1000).unwrap()
    }

    #[test]
    fn only_the_drawn_moves_are_legal() {
        let states = [
            State::Standby,
            State::Held(pid()),
            State::Running(pid()),
            State::Restoring(pid()),
            State::Clearing,
        ];
        let moves: [Move; 7] = [
            ("hold", |state| state.hold(pid())),
            ("run", State::run),
            ("expect", |state| state.expect(pid())),
            ("adopt", State::adopt),
            ("give_up", State::give_up),
            ("exited", State::exited),
            ("cleared", State::cleared),
        ];
        let legal = [
            ("hold", State::Standby, State::Held(pid())),
            ("run", State::Held(pid()), State::Running(pid())),
            ("expect", State::Standby, State::Restoring(pid())),
            ("adopt", State::Restoring(pid()), State::Running(pid())),
            ("give_up", State::Held(pid()), State::Clearing),
            ("give_up", State::Restoring(pid()), State::Clearing),
            ("exited", State::Running(pid()), State::Clearing),
            ("cleared", State::Clearing, State::Standby),
        ];
        for state in states {
            for (name, apply) in moves {
                let expected = legal
                    .iter()
                    .find(|(legal, from, _)| *legal == name && *from == state)
                    .map_or(Err(WrongState { state }), |(_, _, to)| Ok(*to));
                assert_eq!(apply(state), expected, "{name} while {state}");
            }
        }
    }
}
