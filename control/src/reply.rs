//! What the init answers.

use crate::state::{State, WrongState};
use crate::values::{Errno, ExitStatus, Pid, Policy};
use crate::wire::{DecodeError, OutOfRange, Packet, Reader};

/// The init's answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Ok,
    /// A process is held before it executes the image's command.
    Prepared {
        /// Its pid in the container.
        pid: Pid,
    },
    /// The application runs.
    Running {
        /// The pid of its root in the container.
        pid: Pid,
    },
    /// The image's command could not be executed.
    ExecFailed(ExecFailure),
    /// How things stand.
    Status(Status),
    /// What there is to say of the application's last end.
    Account(Account),
    /// The number that was given out last in the container.
    Births {
        /// As the container counts.
        last: u32,
    },
    /// Nothing was done.
    Refused(Refusal),
}

/// Why the image's command was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecFailure {
    /// What failed.
    pub step: ExecStep,
    /// With which error.
    pub errno: Errno,
}

impl ExecFailure {
    /// The failure in runc's words, for the command's `name` (its first argument).
    #[must_use]
    pub fn sentence(&self, name: &str) -> String {
        let errno = self.errno;
        match self.step {
            ExecStep::Search => format!("exec: \"{name}\": executable file not found in $PATH"),
            ExecStep::Relative => {
                format!("exec: \"{name}\": cannot run executable found relative to current directory")
            }
            ExecStep::Stat => format!("exec: \"{name}\": stat {name}: {errno}"),
            ExecStep::Access => format!("exec: \"{name}\": {errno}"),
            ExecStep::Exec => format!("exec {name}: {errno}"),
            ExecStep::Setup => format!("cannot set up the process of {name}: {errno}"),
            ExecStep::Confine => {
                format!("cannot put the process of {name} under its container's AppArmor profile: {errno}: is it loaded, and nothing mounted over /proc?")
            }
        }
    }
}

/// The steps to an executed command. The first four are those of Go's `exec.LookPath`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecStep {
    /// No directory of `PATH` holds the command.
    Search,
    /// `PATH` leads to it only by a relative directory.
    Relative,
    /// A command with a slash is not there.
    Stat,
    /// A command with a slash is there but is a directory or not executable.
    Access,
    /// The new process could not get its session, its signals or its subreaper role, or died before `execve`.
    Setup,
    /// It could not go from the init's AppArmor profile to the container's.
    Confine,
    /// `execve` itself.
    Exec,
}

/// The init's account of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What the application is doing.
    pub state: State,
    /// How the application ended last, if it ever did.
    pub last_exit: Option<ExitStatus>,
    /// How many times an application came up, started or restored.
    pub runs: u32,
    /// What an exit without a mark means.
    pub policy: Policy,
    /// Whether [`Stop`](crate::Request::Stop) marked the next exit.
    pub marked: bool,
}

/// The application's last end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Whether a decision is waited for.
    pub waits: bool,
    /// From its coming up to its end, in milliseconds; 0 when none has ended.
    pub ran_ms: u32,
}

/// Why the init did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is not legal now.
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// There is no such process, or it is not the init's child.
    #[error("there is no such process under the init")]
    NoSuchProcess,
    /// There are [`MAX_CONNECTIONS`](crate::MAX_CONNECTIONS) connections already; this one is closed.
    /// A request sent meanwhile may find a broken connection instead.
    #[error("the init has too many connections")]
    Busy,
    /// The packet is not a request; the connection is closed.
    #[error("the init could not read the request")]
    Malformed,
    /// The init speaks another version, the one given; the connection is closed.
    #[error("the init speaks version {ours} of the control protocol")]
    VersionMismatch {
        /// The init's version.
        ours: u8,
    },
    /// `Release` came on another connection than `Run`.
    #[error("another connection holds the process")]
    NotHolder,
    /// The previous request on this connection was not answered yet, or the connection only takes events; it is
    /// closed.
    #[error("the connection must wait for what the init has to say")]
    OutOfTurn,
    /// No decision is waited for.
    #[error("the init waits for no decision")]
    NothingToDecide,
    /// There are as many changes to the command as the init keeps.
    #[error("the init keeps no more changes to the command")]
    TooManyChanges,
    /// A system call failed.
    #[error("the init failed: {errno}")]
    Failed {
        /// With this error.
        errno: Errno,
    },
}

/// Kinds of replies: 0x41 to 0x7f.
mod kind {
    pub(super) const OK: u8 = 0x41;
    pub(super) const PREPARED: u8 = 0x42;
    pub(super) const RUNNING: u8 = 0x43;
    pub(super) const EXEC_FAILED: u8 = 0x44;
    pub(super) const STATUS: u8 = 0x45;
    pub(super) const REFUSED: u8 = 0x46;
    pub(super) const ACCOUNT: u8 = 0x47;
    pub(super) const BIRTHS: u8 = 0x48;
}

impl Reply {
    /// The reply's bytes.
    #[must_use]
    pub fn encode(&self) -> Packet {
        let (kind, put): (u8, &dyn Fn(&mut Packet)) = match self {
            Self::Ok => (kind::OK, &|_| {}),
            Self::Prepared { pid } => (kind::PREPARED, &|packet| pid.put(packet)),
            Self::Running { pid } => (kind::RUNNING, &|packet| pid.put(packet)),
            Self::ExecFailed(failure) => (kind::EXEC_FAILED, &|packet| failure.put(packet)),
            Self::Status(status) => (kind::STATUS, &|packet| status.put(packet)),
            Self::Account(account) => (kind::ACCOUNT, &|packet| account.put(packet)),
            Self::Births { last } => (kind::BIRTHS, &|packet| packet.put_u32(*last)),
            Self::Refused(refusal) => (kind::REFUSED, &|packet| refusal.put(packet)),
        };
        let mut packet = Packet::new(kind);
        put(&mut packet);
        packet
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// Any [`DecodeError`]: the packet is not exactly one reply of this version.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (kind, mut reader) = Reader::open(packet)?;
        let reply = match kind {
            kind::OK => Self::Ok,
            kind::PREPARED => Self::Prepared { pid: Pid::take(&mut reader)? },
            kind::RUNNING => Self::Running { pid: Pid::take(&mut reader)? },
            kind::EXEC_FAILED => Self::ExecFailed(ExecFailure::take(&mut reader)?),
            kind::STATUS => Self::Status(Status::take(&mut reader)?),
            kind::ACCOUNT => Self::Account(Account::take(&mut reader)?),
            kind::REFUSED => Self::Refused(Refusal::take(&mut reader)?),
            kind::BIRTHS => Self::Births { last: reader.u32()? },
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        reader.close(reply)
    }
}

impl ExecStep {
    /// The step's number on the wire, for those who carry it by other means.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Search => 1,
            Self::Relative => 2,
            Self::Stat => 3,
            Self::Access => 4,
            Self::Setup => 5,
            Self::Exec => 6,
            Self::Confine => 7,
        }
    }

    /// The step of a number.
    ///
    /// # Errors
    /// [`OutOfRange`] when no step has it.
    pub fn from_number(number: u8) -> Result<Self, OutOfRange> {
        match number {
            1 => Ok(Self::Search),
            2 => Ok(Self::Relative),
            3 => Ok(Self::Stat),
            4 => Ok(Self::Access),
            5 => Ok(Self::Setup),
            6 => Ok(Self::Exec),
            7 => Ok(Self::Confine),
            other => Err(OutOfRange { what: "exec step", value: other.into() }),
        }
    }
}

impl ExecFailure {
    fn put(self, packet: &mut Packet) {
        packet.put_u8(self.step.number());
        self.errno.put(packet);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { step: ExecStep::from_number(reader.u8()?)?, errno: Errno::take(reader)? })
    }
}

impl Status {
    fn put(&self, packet: &mut Packet) {
        self.state.put(packet);
        ExitStatus::put_option(self.last_exit, packet);
        packet.put_u32(self.runs);
        self.policy.put(packet);
        packet.put_u8(self.marked.into());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            state: State::take(reader)?,
            last_exit: ExitStatus::take_option(reader)?,
            runs: reader.u32()?,
            policy: Policy::take(reader)?,
            marked: reader.bool("mark")?,
        })
    }
}

impl Account {
    fn put(&self, packet: &mut Packet) {
        packet.put_u8(self.waits.into());
        packet.put_u32(self.ran_ms);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { waits: reader.bool("wait for a decision")?, ran_ms: reader.u32()? })
    }
}

impl Refusal {
    fn put(self, packet: &mut Packet) {
        match self {
            Self::WrongState(WrongState { state }) => {
                packet.put_u8(1);
                state.put(packet);
            }
            Self::NoSuchProcess => packet.put_u8(2),
            Self::Busy => packet.put_u8(3),
            Self::Malformed => packet.put_u8(4),
            Self::VersionMismatch { ours } => {
                packet.put_u8(5);
                packet.put_u8(ours);
            }
            Self::NotHolder => packet.put_u8(6),
            Self::OutOfTurn => packet.put_u8(7),
            Self::Failed { errno } => {
                packet.put_u8(8);
                errno.put(packet);
            }
            Self::NothingToDecide => packet.put_u8(9),
            Self::TooManyChanges => packet.put_u8(10),
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::WrongState(WrongState { state: State::take(reader)? })),
            2 => Ok(Self::NoSuchProcess),
            3 => Ok(Self::Busy),
            4 => Ok(Self::Malformed),
            5 => Ok(Self::VersionMismatch { ours: reader.u8()? }),
            6 => Ok(Self::NotHolder),
            7 => Ok(Self::OutOfTurn),
            8 => Ok(Self::Failed { errno: Errno::take(reader)? }),
            9 => Ok(Self::NothingToDecide),
            10 => Ok(Self::TooManyChanges),
            other => Err(OutOfRange { what: "refusal", value: other.into() }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::{check, check_space};
    use crate::Signal;

    fn pid() -> Pid {
        Pid::new(4_194_303).unwrap()
    }

    fn states() -> [State; 5] {
        [State::Standby, State::Held(pid()), State::Running(pid()), State::Restoring(pid()), State::Clearing]
    }

    fn steps() -> [ExecStep; 7] {
        use ExecStep::{Access, Confine, Exec, Relative, Search, Setup, Stat};
        [Search, Relative, Stat, Access, Setup, Confine, Exec]
    }

    fn all() -> Vec<Reply> {
        let errno = Errno::new(4095).unwrap();
        let mut replies = vec![Reply::Ok, Reply::Prepared { pid: pid() }, Reply::Running { pid: pid() }];
        replies.extend(steps().map(|step| Reply::ExecFailed(ExecFailure { step, errno })));
        let exits = [None, Some(ExitStatus::Code(0)), Some(ExitStatus::Signal(Signal::MAX))];
        for state in states() {
            for last_exit in exits {
                let status =
                    Status { state, last_exit, runs: u32::MAX, policy: Policy::Standby, marked: true };
                replies.push(Reply::Status(status));
            }
            replies.push(Reply::Refused(WrongState { state }.into()));
        }
        let refusals = [
            Refusal::NoSuchProcess,
            Refusal::Busy,
            Refusal::Malformed,
            Refusal::VersionMismatch { ours: 1 },
            Refusal::NotHolder,
            Refusal::OutOfTurn,
            Refusal::Failed { errno },
            Refusal::NothingToDecide,
            Refusal::TooManyChanges,
        ];
        replies.push(Reply::Account(Account { waits: true, ran_ms: u32::MAX }));
        replies.extend(refusals.map(Reply::Refused));
        replies.push(Reply::Births { last: u32::MAX });
        replies
    }

    #[test]
    fn every_message_fits() {
        for reply in all() {
            check(&reply, reply.encode(), Reply::decode);
        }
    }

    #[test]
    fn every_reply_has_one_encoding() {
        check_space(&(0x41..=0x48).collect::<Vec<_>>(), Reply::decode, Reply::encode);
    }

    #[test]
    fn failures_read_like_runc_s() {
        let sentence = |step, errno| {
            let errno = Errno::new(errno).unwrap();
            ExecFailure { step, errno }.sentence("/bin/x")
        };
        assert_eq!(sentence(ExecStep::Stat, 2), "exec: \"/bin/x\": stat /bin/x: no such file or directory");
        assert_eq!(sentence(ExecStep::Access, 13), "exec: \"/bin/x\": permission denied");
        assert_eq!(sentence(ExecStep::Exec, 8), "exec /bin/x: exec format error");
    }
}
