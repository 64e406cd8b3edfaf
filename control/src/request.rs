//! What the engine asks of the init.

use crate::values::{Pid, Policy, Signal};
use crate::wire::{DecodeError, Packet, Reader};

/// A request of the engine. Each says which [`Reply`](crate::Reply) it expects; every one may be answered
/// `Refused` instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Fork a process for the image's command and hold it before it executes anything. Legal in standby.
    /// `Prepared`, or `ExecFailed` when the command is not there. Closing the connection before [`Self::Release`]
    /// kills the held process. With a descriptor (`SCM_RIGHTS`) the process writes a 0 to that first: the `tasks` of a cgroup
    /// of version 1, which it is in then. Whether it worked is for whoever asked to find out.
    Run,
    /// Let the held process execute the command; only on the connection that sent [`Self::Run`].
    /// `Running`, or `ExecFailed`, after which the init is back in standby.
    Release,
    /// A restore is about to create the application's root under this pid. Legal in standby. `Ok`.
    Expect {
        /// The pid the restored root will have.
        pid: Pid,
    },
    /// The restore is complete: the expected process is the application. Legal while restoring. `Running`, also
    /// when it has exited meanwhile: that exit is then handled as any other, right after the reply.
    /// `Refused(NoSuchProcess)` leaves the state as it was.
    Adopt,
    /// The restore failed: kill what it left. Legal while restoring. `Ok`, once the init is back in standby.
    Abandon,
    /// The next exit of the application leads to standby, whatever the policy. Legal while running. `Ok` at once;
    /// the events `Exited` and `Standby` follow.
    Stop {
        /// Sent to the application's root; none only marks it, for a caller that kills by other means.
        signal: Option<Signal>,
    },
    /// Take back the mark that [`Self::Stop`] set. Legal while running. `Ok`.
    Unmark,
    /// Set what exits without a mark mean from now on. Always legal. `Ok`.
    OnExit {
        /// The new policy.
        policy: Policy,
    },
    /// Send a signal to the application's root. Legal while running. `Ok`, or `Refused(NoSuchProcess)`.
    Signal {
        /// The signal, which may be one that nobody can catch.
        signal: Signal,
    },
    /// End the container: everything in it is killed. Always legal. `Ok`, then the connection breaks.
    End {
        /// The exit code of the container.
        code: u8,
    },
    /// Ask how things stand. Always legal. `Status`.
    Status,
    /// Ask which number the kernel gave to the process or thread that was born last in the container. Always legal. `Births`.
    /// Inits of earlier versions refuse it as malformed.
    Births,
    /// Receive events on this connection from now on, and send nothing more. `Ok`.
    Subscribe,
    /// From now on an exit without a mark waits for a decision: another application, [`Self::Stay`] or [`Self::End`]. When
    /// none comes in this time the container ends with the application's code. An application whose end was asked for
    /// through PID 1 is not waited for. Always legal. `Ok`.
    Ask {
        /// How long, in milliseconds.
        patience_ms: u32,
    },
    /// The decision will take so much longer from now. Legal while one is waited for. `Ok`.
    Postpone {
        /// How long, in milliseconds.
        ms: u32,
    },
    /// The decision is that nothing comes up: standby. Legal while one is waited for. `Ok`.
    Stay,
    /// Ask about the application's last end. Always legal. `Account`.
    Account,
}

impl Request {
    /// Its name, for logs; nothing of what is asked.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Release => "release",
            Self::Expect { .. } => "expect",
            Self::Adopt => "adopt",
            Self::Abandon => "abandon",
            Self::Stop { .. } => "stop",
            Self::Unmark => "unmark",
            Self::OnExit { .. } => "on-exit",
            Self::Signal { .. } => "signal",
            Self::End { .. } => "end",
            Self::Status => "status",
            Self::Births => "births",
            Self::Subscribe => "subscribe",
            Self::Ask { .. } => "ask",
            Self::Postpone { .. } => "postpone",
            Self::Stay => "stay",
            Self::Account => "account",
        }
    }

    /// Whether it is more than a question.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Status | Self::Births | Self::Subscribe | Self::Account)
    }
}

/// Kinds of requests: 0x01 to 0x3f.
mod kind {
    pub(super) const RUN: u8 = 0x01;
    pub(super) const RELEASE: u8 = 0x02;
    pub(super) const EXPECT: u8 = 0x03;
    pub(super) const ADOPT: u8 = 0x04;
    pub(super) const ABANDON: u8 = 0x05;
    pub(super) const STOP: u8 = 0x06;
    pub(super) const UNMARK: u8 = 0x07;
    pub(super) const ON_EXIT: u8 = 0x08;
    pub(super) const END: u8 = 0x09;
    pub(super) const SIGNAL: u8 = 0x0a;
    pub(super) const STATUS: u8 = 0x0b;
    pub(super) const SUBSCRIBE: u8 = 0x0c;
    pub(super) const ASK: u8 = 0x0d;
    pub(super) const POSTPONE: u8 = 0x0e;
    pub(super) const STAY: u8 = 0x0f;
    pub(super) const ACCOUNT: u8 = 0x10;
    pub(super) const BIRTHS: u8 = 0x11;
}

impl Request {
    /// The request's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet {
        let mut packet = Packet::new(self.kind());
        match *self {
            Self::Expect { pid } => pid.put(&mut packet),
            Self::Stop { signal } => Signal::put_option(signal, &mut packet),
            Self::OnExit { policy } => policy.put(&mut packet),
            Self::Signal { signal } => signal.put(&mut packet),
            Self::End { code } => packet.put_u8(code),
            Self::Ask { patience_ms: ms } | Self::Postpone { ms } => packet.put_u32(ms),
            Self::Run
            | Self::Release
            | Self::Adopt
            | Self::Abandon
            | Self::Unmark
            | Self::Status
            | Self::Subscribe
            | Self::Stay
            | Self::Account
            | Self::Births => {}
        }
        packet
    }

    /// Reads a request.
    ///
    /// # Errors
    /// Any [`DecodeError`]: the packet is not exactly one request of this version.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (kind, mut reader) = Reader::open(packet)?;
        let request = match kind {
            kind::RUN => Self::Run,
            kind::RELEASE => Self::Release,
            kind::EXPECT => Self::Expect { pid: Pid::take(&mut reader)? },
            kind::ADOPT => Self::Adopt,
            kind::ABANDON => Self::Abandon,
            kind::STOP => Self::Stop { signal: Signal::take_option(&mut reader)? },
            kind::UNMARK => Self::Unmark,
            kind::ON_EXIT => Self::OnExit { policy: Policy::take(&mut reader)? },
            kind::SIGNAL => Self::Signal { signal: Signal::take(&mut reader)? },
            kind::END => Self::End { code: reader.u8()? },
            kind::STATUS => Self::Status,
            kind::SUBSCRIBE => Self::Subscribe,
            kind::ASK => Self::Ask { patience_ms: reader.u32()? },
            kind::POSTPONE => Self::Postpone { ms: reader.u32()? },
            kind::STAY => Self::Stay,
            kind::ACCOUNT => Self::Account,
            kind::BIRTHS => Self::Births,
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        reader.close(request)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Run => kind::RUN,
            Self::Release => kind::RELEASE,
            Self::Expect { .. } => kind::EXPECT,
            Self::Adopt => kind::ADOPT,
            Self::Abandon => kind::ABANDON,
            Self::Stop { .. } => kind::STOP,
            Self::Unmark => kind::UNMARK,
            Self::OnExit { .. } => kind::ON_EXIT,
            Self::Signal { .. } => kind::SIGNAL,
            Self::End { .. } => kind::END,
            Self::Status => kind::STATUS,
            Self::Subscribe => kind::SUBSCRIBE,
            Self::Births => kind::BIRTHS,
            Self::Ask { .. } => kind::ASK,
            Self::Postpone { .. } => kind::POSTPONE,
            Self::Stay => kind::STAY,
            Self::Account => kind::ACCOUNT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::{check, check_space};
    use crate::{OutOfRange, VERSION};

    fn all() -> Vec<Request> {
        let term = Signal::new(15).unwrap();
        vec![
            Request::Run,
            Request::Release,
            Request::Expect { pid: Pid::new(0x0003_0201).unwrap() },
            Request::Adopt,
            Request::Abandon,
            Request::Stop { signal: None },
            Request::Stop { signal: Some(term) },
            Request::Unmark,
            Request::OnExit { policy: Policy::End },
            Request::OnExit { policy: Policy::Standby },
            Request::Signal { signal: Signal::MAX },
            Request::End { code: 255 },
            Request::Status,
            Request::Subscribe,
            Request::OnExit { policy: Policy::Ask },
            Request::Ask { patience_ms: 30_000 },
            Request::Postpone { ms: u32::MAX },
            Request::Stay,
            Request::Account,
            Request::Births,
        ]
    }

    #[test]
    fn every_request_has_one_encoding() {
        for request in all() {
            check(&request, request.encode(), Request::decode);
        }
        check_space(&(0x01..=0x11).collect::<Vec<_>>(), Request::decode, Request::encode);
    }

    #[test]
    fn fields_are_little_endian() {
        let pid = Pid::new(0x0003_0201).unwrap();
        assert_eq!(Request::Expect { pid }.encode().as_bytes(), [VERSION, 3, 1, 2, 3, 0]);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let refused: [(&[u8], OutOfRange); 6] = [
            (&[VERSION, 3, 1, 0, 0, 0], OutOfRange { what: "pid", value: 1 }),
            (&[VERSION, 3, 0xff, 0xff, 0xff, 0xff], OutOfRange { what: "pid", value: -1 }),
            (&[VERSION, 6, 65], OutOfRange { what: "signal", value: 65 }),
            (&[VERSION, 10, 0], OutOfRange { what: "signal", value: 0 }),
            (&[VERSION, 8, 0], OutOfRange { what: "policy", value: 0 }),
            (&[VERSION, 8, 4], OutOfRange { what: "policy", value: 4 }),
        ];
        for (packet, error) in refused {
            assert_eq!(Request::decode(packet), Err(DecodeError::OutOfRange(error)));
        }
    }
}
