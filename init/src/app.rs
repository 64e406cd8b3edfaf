//! Starts the image's command in two steps: fork and hold, then execute.
//!
//! The new process is told to go on through one pipe and reports through another, which its `execve` closes.

use std::ffi::{c_int, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use fastmig_control::{Errno as WireErrno, ExecFailure, ExecStep, Pid};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, setsid, write};

use crate::changes::Changes;
use crate::control::Slot;
use crate::lookup;
use crate::profile::Profile;
use crate::sys::{self, wire_errno, Argv, Mask};

/// How far a held process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It makes its session; whoever asked for it waits for the answer.
    Preparing,
    /// It waits to be released.
    Ready,
    /// It was released; whoever did so waits for the answer.
    Released,
}

/// What a held process has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Nothing yet.
    Nothing,
    /// It waits to be released.
    Ready,
    /// It failed and exits.
    Failed(ExecFailure),
    /// It has executed the command, or died.
    Closed,
}

/// A process between fork and exec.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) pid: Pid,
    /// The connection that asked for it, while it is open. When it closes before the release, the process dies.
    pub(crate) holder: Option<Slot>,
    pub(crate) stage: Stage,
    gate: OwnedFd,
    reports: OwnedFd,
}

/// Why nothing was forked.
pub(crate) enum LaunchError {
    /// The command is not there.
    Command(ExecFailure),
    /// The kernel refused a pipe or a process.
    System(Errno),
}

impl From<Errno> for LaunchError {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// What is executed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) command: &'a [CString],
    /// In place of the init's own.
    pub(crate) environment: Option<&'a [CString]>,
}

/// What it is started into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The signals that it is to have blocked.
    pub(crate) mask: Mask,
    /// Whether it takes the terminal.
    pub(crate) terminal: bool,
    /// The init's descriptors that it must not keep while it waits.
    pub(crate) private: &'a [RawFd],
    /// What it writes a 0 to, to be in its cgroup.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// What it goes under.
    pub(crate) profile: Option<&'a Profile>,
}

/// What the new process needs, all of it made before the fork.
struct Plan<'a> {
    file: CString,
    argv: Argv<'a>,
    environment: Option<Argv<'a>>,
    mask: Mask,
    terminal: bool,
    cgroup: Option<BorrowedFd<'a>>,
    profile: Option<&'a Profile>,
    private: &'a [RawFd],
    gate: BorrowedFd<'a>,
    reports: BorrowedFd<'a>,
}

impl Launch {
    /// Forks a process for `program`.
    pub(crate) fn begin(
        program: Program<'_>,
        into: Surroundings<'_>,
        holder: Slot,
    ) -> Result<Self, LaunchError> {
        let name = program.command.first().map_or(c"", |name| name.as_c_str());
        let path = Changes::path(program.environment);
        let file = lookup::find(name, path.as_bytes()).map_err(LaunchError::Command)?;
        let (gate_read, gate) = pipe2(OFlag::O_CLOEXEC)?;
        let (reports, reports_write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // The new process must not hold the gate's own end, or the gate would never close.
        let private = [into.private, &[gate.as_raw_fd(), reports.as_raw_fd()]].concat();
        let plan = Plan {
            file,
            argv: Argv::new(program.command),
            environment: program.environment.map(Argv::new),
            mask: into.mask,
            terminal: into.terminal,
            cgroup: into.cgroup,
            profile: into.profile,
            private: &private,
            gate: gate_read.as_fd(),
            reports: reports_write.as_fd(),
        };
        let pid = sys::fork(|| child(&plan))?;
        let pid = Pid::new(pid).map_err(|_| Errno::ESRCH)?;
        Ok(Self { pid, holder: Some(holder), stage: Stage::Preparing, gate, reports })
    }

    /// Lets the process execute the command.
    pub(crate) fn release(&mut self) -> nix::Result<()> {
        write(&self.gate, &[1])?;
        self.stage = Stage::Released;
        Ok(())
    }

    /// The next report.
    pub(crate) fn report(&self) -> Report {
        let mut record = [0; RECORD];
        match read(&self.reports, &mut record) {
            Ok(RECORD) => decode(record),
            Err(Errno::EAGAIN | Errno::EINTR) => Report::Nothing,
            _ => Report::Closed,
        }
    }
}

impl AsFd for Launch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

/// A report's length: the step's number, or 0 for ready, and the error number.
const RECORD: usize = 5;

fn encode(step: u8, errno: i32) -> [u8; RECORD] {
    let [a, b, c, d] = errno.to_le_bytes();
    [step, a, b, c, d]
}

fn decode([step, errno @ ..]: [u8; RECORD]) -> Report {
    match ExecStep::from_number(step) {
        Ok(step) => {
            let errno = WireErrno::new(i32::from_le_bytes(errno)).unwrap_or(WireErrno::IO);
            Report::Failed(ExecFailure { step, errno })
        }
        Err(_) => Report::Ready,
    }
}

/// The new process, from fork to exec. Nothing here allocates.
fn child(plan: &Plan<'_>) -> c_int {
    let failure = match prepare(plan) {
        Ok(true) => (ExecStep::Exec, execute(plan)),
        Ok(false) => return 0,
        Err(failure) => failure,
    };
    let _ = write(plan.reports, &encode(failure.0.number(), wire_errno(failure.1).get()));
    127
}

/// Everything up to the gate. False when the gate closed instead of opening.
fn prepare(plan: &Plan<'_>) -> Result<bool, (ExecStep, Errno)> {
    let failed = |errno| (ExecStep::Setup, errno);
    set_up(plan).map_err(failed)?;
    if let Some(profile) = plan.profile {
        profile.enter().map_err(|errno| (ExecStep::Confine, errno))?;
    }
    wait_at_gate(plan).map_err(failed)
}

fn set_up(plan: &Plan<'_>) -> nix::Result<()> {
    sys::close_in_child(plan.private);
    if let Some(cgroup) = plan.cgroup {
        // Who asked for the process looks whether it is there.
        let _ = write(cgroup, b"0");
    }
    setsid()?;
    if plan.terminal {
        // Fails where it controls a session outside of the container; such an application has no job control, with
        // or without this init.
        let _ = sys::take_terminal(std::io::stdin().as_fd());
    }
    // Orphans of the application stay with it instead of coming to the init, so that a checkpoint sees them.
    nix::sys::prctl::set_child_subreaper(true)?;
    for signal in 1..=64 {
        sys::set_ignored(signal, false);
    }
    Ok(())
}

fn wait_at_gate(plan: &Plan<'_>) -> nix::Result<bool> {
    write(plan.reports, &encode(0, 0))?;
    let mut opened = [0];
    Ok(read(plan.gate, &mut opened)? == 1)
}

fn execute(plan: &Plan<'_>) -> Errno {
    match sys::swap_mask(plan.mask) {
        Ok(_) => sys::exec(&plan.file, &plan.argv, plan.environment.as_ref()),
        Err(errno) => errno,
    }
}
