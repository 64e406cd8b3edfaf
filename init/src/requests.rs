//! What each request of the engine does.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use fastmig_control::{Account, Event, Pid, Policy, Refusal, Reply, Request, Signal, Status, WrongState};
use nix::errno::Errno;

use crate::app::{Launch, LaunchError, Program, Stage, Surroundings};
use crate::control::Slot;
use crate::init::Init;
use crate::sys::{self, wire_errno};

/// An answer now (`Some`) or when what was asked for has happened.
type Answer = Result<Option<Reply>, Refusal>;

impl Init {
    /// Does what a connection asks for and answers it, now or later.
    pub(crate) fn serve(&mut self, slot: Slot, request: Request, descriptor: Option<OwnedFd>) {
        if request == Request::Subscribe {
            if !self.connections.subscribe(slot) {
                self.connection_closed(slot);
            }
            return;
        }
        match self.execute(slot, request, descriptor) {
            Ok(None) => {}
            Ok(Some(reply)) => self.respond(slot, reply),
            Err(refusal) => self.respond(slot, Reply::Refused(refusal)),
        }
        // After the answer, so that the engine knows of the adoption before it hears of the exit.
        self.handle_early_exit();
    }

    fn execute(&mut self, slot: Slot, request: Request, descriptor: Option<OwnedFd>) -> Answer {
        match request {
            Request::Run => return self.prepare(slot, descriptor),
            Request::Release => return self.release(slot),
            Request::Adopt => return self.adopt().map(|pid| Some(Reply::Running { pid })),
            Request::Abandon => return self.abandon(slot),
            Request::Status => return Ok(Some(Reply::Status(self.status()))),
            Request::Births => return births().map(|last| Some(Reply::Births { last })),
            Request::Account => return Ok(Some(Reply::Account(self.account()))),
            Request::Expect { pid } => {
                self.state = self.state.expect(pid)?;
                self.something_comes_up();
            }
            Request::Stop { signal } => self.stop(signal)?,
            Request::Unmark => {
                self.state.running()?;
                self.marked = false;
            }
            Request::OnExit { policy } => self.policy = policy,
            Request::Signal { signal } => self.signal(signal)?,
            Request::End { code } => self.end = Some(code),
            Request::Ask { patience_ms } => {
                self.policy = Policy::Ask;
                self.patience = milliseconds(patience_ms);
            }
            Request::Postpone { ms } => {
                self.verdict.as_mut().ok_or(Refusal::NothingToDecide)?.postpone(milliseconds(ms));
            }
            Request::Stay => {
                self.verdict.take().ok_or(Refusal::NothingToDecide)?;
            }
            // Answered by the caller, because it changes the connection.
            Request::Subscribe => {}
        }
        Ok(Some(Reply::Ok))
    }

    fn prepare(&mut self, slot: Slot, cgroup: Option<OwnedFd>) -> Answer {
        self.state.standby()?;
        let private = self.connections.descriptors();
        let command = self.changes.command(&self.command);
        let environment = self.changes.environment(std::env::vars_os());
        let program = Program { command: &command, environment: environment.as_deref() };
        let surroundings = Surroundings {
            mask: self.signals.original(),
            terminal: self.terminal.is_some(),
            private: &private,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            profile: self.profile.as_ref(),
        };
        match Launch::begin(program, surroundings, slot) {
            Ok(launch) => {
                self.state = self.state.hold(launch.pid)?;
                self.launch = Some(launch);
                self.something_comes_up();
                Ok(None)
            }
            Err(LaunchError::Command(failure)) => {
                self.lament(failure);
                Ok(Some(Reply::ExecFailed(failure)))
            }
            Err(LaunchError::System(errno)) => Err(failed(errno)),
        }
    }

    fn release(&mut self, slot: Slot) -> Answer {
        let wrong_state = WrongState { state: self.state };
        match &mut self.launch {
            Some(launch) if launch.holder != Some(slot) => Err(Refusal::NotHolder),
            Some(launch) if launch.stage == Stage::Ready => {
                launch.release().map_err(failed)?;
                Ok(None)
            }
            _ => Err(wrong_state.into()),
        }
    }

    fn something_comes_up(&mut self) {
        if let Some(verdict) = &mut self.verdict {
            verdict.comes_up();
        }
    }

    fn adopt(&mut self) -> Result<Pid, Refusal> {
        let adopted = self.state.adopt()?;
        let pid = adopted.running()?;
        if self.early_exit.is_none() && !sys::has_child(Some(pid)) {
            return Err(Refusal::NoSuchProcess);
        }
        self.state = adopted;
        self.came_up(Event::Restored { pid });
        Ok(pid)
    }

    fn abandon(&mut self, slot: Slot) -> Answer {
        // Nothing but a restore is abandoned; a held process goes with its connection.
        self.state.adopt()?;
        self.state = self.state.give_up()?;
        self.early_exit = None;
        self.after_clearing = Some((slot, Reply::Ok));
        self.clear();
        Ok(None)
    }

    fn stop(&mut self, signal: Option<Signal>) -> Result<(), Refusal> {
        self.state.running()?;
        if let Some(signal) = signal {
            self.signal(signal)?;
        }
        self.marked = true;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), Refusal> {
        let pid = self.state.running()?;
        sys::kill(pid, signal).map_err(|errno| match errno {
            Errno::ESRCH => Refusal::NoSuchProcess,
            other => failed(other),
        })
    }

    fn status(&self) -> Status {
        Status {
            state: self.state,
            last_exit: self.last_exit,
            runs: self.runs,
            policy: self.policy,
            marked: self.marked,
        }
    }

    fn account(&self) -> Account {
        let ran_ms = u32::try_from(self.last_run.as_millis()).unwrap_or(u32::MAX);
        Account { waits: self.verdict.is_some(), ran_ms }
    }
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

/// Numbers are given out in their order: who sees the same twice knows that nobody was born in between.
fn births() -> Result<u32, Refusal> {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    let text = std::fs::read_to_string(LAST)
        .map_err(|e| failed(e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
    text.trim().parse().map_err(|_| failed(Errno::EINVAL))
}

fn failed(errno: Errno) -> Refusal {
    Refusal::Failed { errno: wire_errno(errno) }
}
