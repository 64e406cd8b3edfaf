//! What the init tells subscribers.

use crate::values::{ExitStatus, Pid};
use crate::wire::{DecodeError, Packet, Reader};

/// Something that happened to the application, sent to every subscriber in the order it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The image's command was executed.
    Started {
        /// Its pid in the container.
        pid: Pid,
    },
    /// A restored application was adopted.
    Restored {
        /// The pid of its root in the container.
        pid: Pid,
    },
    /// The application's root ended. The container's end follows, or [`Self::Standby`].
    Exited {
        /// The pid it had.
        pid: Pid,
        /// How it ended.
        status: ExitStatus,
    },
    /// Nothing of the application is left and the container waits for the next.
    Standby,
}

/// Kinds of events: 0x81 to 0xbf.
mod kind {
    pub(super) const STARTED: u8 = 0x81;
    pub(super) const RESTORED: u8 = 0x82;
    pub(super) const EXITED: u8 = 0x83;
    pub(super) const STANDBY: u8 = 0x84;
}

impl Event {
    /// The event's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet {
        let mut packet = Packet::new(self.kind());
        match *self {
            Self::Started { pid } | Self::Restored { pid } => pid.put(&mut packet),
            Self::Exited { pid, status } => {
                pid.put(&mut packet);
                status.put(&mut packet);
            }
            Self::Standby => {}
        }
        packet
    }

    /// Reads an event.
    ///
    /// # Errors
    /// Any [`DecodeError`]: the packet is not exactly one event of this version.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (kind, mut reader) = Reader::open(packet)?;
        let event = match kind {
            kind::STARTED => Self::Started { pid: Pid::take(&mut reader)? },
            kind::RESTORED => Self::Restored { pid: Pid::take(&mut reader)? },
            kind::EXITED => {
                Self::Exited { pid: Pid::take(&mut reader)?, status: ExitStatus::take(&mut reader)? }
            }
            kind::STANDBY => Self::Standby,
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        reader.close(event)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Started { .. } => kind::STARTED,
            Self::Restored { .. } => kind::RESTORED,
            Self::Exited { .. } => kind::EXITED,
            Self::Standby => kind::STANDBY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::{check, check_space};
    use crate::Signal;

    #[test]
    fn every_event_has_one_encoding() {
        let pid = Pid::new(2).unwrap();
        let events = [
            Event::Started { pid },
            Event::Restored { pid },
            Event::Exited { pid, status: ExitStatus::Code(7) },
            Event::Exited { pid, status: ExitStatus::Signal(Signal::KILL) },
            Event::Standby,
        ];
        for event in events {
            check(&event, event.encode(), Event::decode);
        }
        check_space(&(0x81..=0x84).collect::<Vec<_>>(), Event::decode, Event::encode);
    }
}
