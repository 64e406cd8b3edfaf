//! The loop: wait, take what the held process, the signals and the connections bring, and move the state.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use fastmig_control::{
    Errno as WireErrno, Event, ExecFailure, ExecStep, ExitStatus, Policy, Reply, State, MAX_CONNECTIONS,
};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::app::{Launch, Report, Stage};
use crate::changes::Changes;
use crate::control::{Connections, Incoming, Slot};
use crate::message::say;
use crate::profile::Profile;
use crate::signals::{ends_standby, Received, Signals};
use crate::terminal::Terminal;
use crate::verdict::{PassedOn, Verdict};
use crate::{children, sys};

/// How many signals are taken before others have their turn: an application may send them without end.
const SIGNALS_PER_TURN: usize = 64;

/// The init of one container.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) command: Vec<CString>,
    /// What the application goes under.
    pub(crate) profile: Option<Profile>,
    pub(crate) changes: Changes,
    pub(crate) connections: Connections,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) signals: Signals,
    pub(crate) state: State,
    /// The held process, exactly while the state is `Held`.
    pub(crate) launch: Option<Launch>,
    /// The exit of the expected process, when it came before the adoption.
    pub(crate) early_exit: Option<ExitStatus>,
    /// An answer that is owed once nothing is left of the application.
    pub(crate) after_clearing: Option<(Slot, Reply)>,
    pub(crate) policy: Policy,
    /// How long a decision is waited for, where the policy is to ask.
    pub(crate) patience: Duration,
    /// The decision that is waited for.
    pub(crate) verdict: Option<Verdict>,
    /// What was passed on to the application since it came up.
    passed_on: PassedOn,
    /// When the application came up, and how long the one before ran.
    came_up_at: Instant,
    pub(crate) last_run: Duration,
    pub(crate) marked: bool,
    pub(crate) last_exit: Option<ExitStatus>,
    pub(crate) runs: u32,
    /// The container's exit code, once it is to end.
    pub(crate) end: Option<u8>,
}

/// What woke the init up.
#[derive(Debug, Default)]
struct Awake {
    signals: bool,
    listener: bool,
    sockets: [Option<Slot>; SOURCES],
}

/// One of the things that can wake the init up.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Launch,
    Listener,
    Connection(Slot),
}

/// As many sources as there can be.
const SOURCES: usize = MAX_CONNECTIONS + 3;

impl Init {
    /// An init in standby.
    pub(crate) fn new(
        command: Vec<CString>,
        profile: Option<Profile>,
        connections: Connections,
        terminal: Option<Terminal>,
        signals: Signals,
    ) -> Self {
        Self {
            command,
            profile,
            changes: Changes::default(),
            connections,
            terminal,
            signals,
            state: State::Standby,
            launch: None,
            early_exit: None,
            after_clearing: None,
            policy: Policy::End,
            patience: Duration::ZERO,
            verdict: None,
            passed_on: PassedOn::none(),
            came_up_at: Instant::now(),
            last_run: Duration::ZERO,
            marked: false,
            last_exit: None,
            runs: 0,
            end: None,
        }
    }

    /// Serves until the container ends, and returns its exit code. The kernel kills whatever still runs in it.
    pub(crate) fn run(mut self) -> u8 {
        loop {
            let awake = self.wait();
            self.turn(&awake);
            self.end_overdue();
            if let Some(code) = self.end {
                return code;
            }
        }
    }

    fn turn(&mut self, awake: &Awake) {
        self.hear_launch();
        if awake.signals {
            self.take_signals();
        }
        for slot in awake.sockets.iter().flatten() {
            if self.end.is_some() {
                return;
            }
            match self.connections.receive(*slot) {
                Incoming::Request(request, descriptor) => self.serve(*slot, request, descriptor),
                Incoming::Change(change) => {
                    let kept = self.changes.add(change);
                    self.respond(*slot, kept.map_or_else(Reply::Refused, |()| Reply::Ok));
                }
                Incoming::Closed => self.connection_closed(*slot),
                Incoming::Nothing => {}
            }
        }
        if awake.listener {
            self.connections.accept();
        }
    }

    /// A decision that nobody made: the container ends as it would have without one.
    fn end_overdue(&mut self) {
        if let Some(verdict) = self.verdict.as_ref().filter(|verdict| verdict.is_overdue()) {
            self.end.get_or_insert(verdict.status.shell_code());
        }
    }

    /// Sleeps until something happens. There is no timeout but for a decision: an idle init costs nothing.
    fn wait(&self) -> Awake {
        let mut sources = [Source::Signals; SOURCES];
        let mut polled: [_; SOURCES] =
            std::array::from_fn(|_| PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        // Only as many as there are: poll(2) fails for more entries than RLIMIT_NOFILE, which may be very low.
        let mut count = 1;
        for (source, fd) in self.sources() {
            sources[count] = source;
            polled[count] = PollFd::new(fd, PollFlags::POLLIN);
            count += 1;
        }
        // Fails only when interrupted, and then nothing is marked ready.
        let limit = self.verdict.as_ref().map_or(PollTimeout::NONE, Verdict::left);
        let _ = nix::poll::poll(&mut polled[..count], limit);
        let mut awake = Awake::default();
        for (index, (source, fd)) in sources.into_iter().zip(&polled[..count]).enumerate() {
            if fd.any() != Some(true) {
                continue;
            }
            match source {
                Source::Signals => awake.signals = true,
                Source::Launch => {}
                Source::Listener => awake.listener = true,
                Source::Connection(slot) => awake.sockets[index] = Some(slot),
            }
        }
        awake
    }

    /// What is waited for besides signals.
    fn sources(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let launch = self.launch.iter().map(|launch| (Source::Launch, launch.as_fd()));
        let listener = self.connections.listener().map(|fd| (Source::Listener, fd));
        let sockets = self.connections.sockets().map(|(slot, fd)| (Source::Connection(slot), fd));
        launch.chain(listener).chain(sockets)
    }

    fn take_signals(&mut self) {
        for _ in 0..SIGNALS_PER_TURN {
            let Some(received) = self.signals.next() else { return };
            if received.signal.get() == libc::SIGCHLD {
                self.reap();
            } else {
                self.forward(received);
            }
        }
    }

    /// Passes a signal on. The stop signals of job control go too: the kernel drops them for the root of a session
    /// that has no handler, as it does for a PID 1.
    fn forward(&mut self, Received { signal, own }: Received) {
        if own {
            return;
        }
        if let State::Running(pid) = self.state {
            // A root that is gone is reaped next, and one of a foreign user is out of reach.
            let _ = sys::kill(pid, signal);
            self.passed_on.note(signal);
        } else if ends_standby(signal) {
            self.end.get_or_insert(ExitStatus::Signal(signal).shell_code());
        }
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = sys::reap() {
            // A released process may have executed the command and ended since the last look.
            self.hear_launch();
            if self.state.pid().is_some_and(|root| root.get() == pid) {
                self.root_ended(status);
            }
        }
        self.clear();
    }

    fn root_ended(&mut self, status: ExitStatus) {
        match self.state {
            State::Running(_) => self.exited(status),
            State::Restoring(_) => self.early_exit = Some(status),
            // A held process that dies closes its reports, which was heard before.
            State::Held(_) | State::Standby | State::Clearing => {}
        }
    }

    /// The application's root is gone.
    fn exited(&mut self, status: ExitStatus) {
        let (Ok(pid), Ok(next)) = (self.state.running(), self.state.exited()) else { return };
        self.state = next;
        self.last_exit = Some(status);
        self.connections.publish(Event::Exited { pid, status });
        self.last_run = self.came_up_at.elapsed();
        let asks = self.policy == Policy::Ask && !self.marked && !self.passed_on.explains(status);
        if asks {
            self.verdict = Some(Verdict::awaited(status, self.patience));
        }
        let lives_on = self.marked || asks || self.policy == Policy::Standby;
        self.marked = false;
        if lives_on {
            self.clear();
        } else {
            self.end.get_or_insert(status.shell_code());
        }
    }

    /// Handles an exit that was waiting for the adoption.
    pub(crate) fn handle_early_exit(&mut self) {
        if self.state.running().is_ok() {
            if let Some(status) = self.early_exit.take() {
                self.exited(status);
            }
        }
    }

    /// Kills what the application left behind; when nothing is left, the container is in standby.
    pub(crate) fn clear(&mut self) {
        let Ok(next) = self.state.cleared() else { return };
        if self.end.is_some() {
            return;
        }
        if !children::none_left() {
            children::kill_all();
            return;
        }
        self.state = next;
        if let Some(terminal) = &self.terminal {
            terminal.reopen();
        }
        if let Some(verdict) = &mut self.verdict {
            // Also after a restore that failed: it is to be decided anew.
            verdict.postpone(self.patience);
        }
        self.connections.publish(Event::Standby);
        if let Some((slot, reply)) = self.after_clearing.take() {
            self.respond(slot, reply);
        }
    }

    /// Takes the reports of the held process.
    fn hear_launch(&mut self) {
        while let Some(launch) = &mut self.launch {
            let (pid, holder, stage) = (launch.pid, launch.holder, launch.stage);
            match (launch.report(), stage) {
                (Report::Nothing, _) => return,
                (Report::Ready, _) => {
                    launch.stage = Stage::Ready;
                    self.answer_holder(holder, Reply::Prepared { pid });
                }
                (Report::Failed(failure), _) => {
                    self.lament(failure);
                    self.give_launch_up(Some(failure));
                }
                (Report::Closed, Stage::Released) => self.started(),
                (Report::Closed, Stage::Preparing) => self.give_launch_up(Some(DIED)),
                (Report::Closed, Stage::Ready) => self.give_launch_up(None),
            }
        }
    }

    fn started(&mut self) {
        let (Some(launch), Ok(next)) = (self.launch.take(), self.state.run()) else { return };
        self.state = next;
        self.came_up(Event::Started { pid: launch.pid });
        self.answer_holder(launch.holder, Reply::Running { pid: launch.pid });
    }

    /// Counts an application that came up and tells of it.
    pub(crate) fn came_up(&mut self, event: Event) {
        self.runs = self.runs.saturating_add(1);
        self.verdict = None;
        self.passed_on = PassedOn::none();
        self.came_up_at = Instant::now();
        self.marked = false;
        self.connections.publish(event);
    }

    /// Ends the held process; its holder hears of the failure, if it waits for one, when that is done.
    fn give_launch_up(&mut self, failure: Option<ExecFailure>) {
        let (Some(launch), Ok(next)) = (self.launch.take(), self.state.give_up()) else { return };
        self.state = next;
        self.after_clearing = launch.holder.zip(failure.map(Reply::ExecFailed));
        self.clear();
    }

    /// Says on standard error why the command does not run, in runc's words.
    pub(crate) fn lament(&self, failure: ExecFailure) {
        let name = self.command.first().map(|name| name.to_string_lossy());
        say(&failure.sentence(name.as_deref().unwrap_or_default()));
    }

    fn answer_holder(&mut self, holder: Option<Slot>, reply: Reply) {
        if let Some(slot) = holder {
            self.respond(slot, reply);
        }
    }

    /// Answers a connection, which may break over it.
    pub(crate) fn respond(&mut self, slot: Slot, reply: Reply) {
        if !self.connections.reply(slot, reply) {
            self.connection_closed(slot);
        }
    }

    /// Forgets a closed connection; what it held and did not release goes with it.
    pub(crate) fn connection_closed(&mut self, slot: Slot) {
        if self.after_clearing.as_ref().is_some_and(|(owed, _)| *owed == slot) {
            self.after_clearing = None;
        }
        if let Some(launch) = &mut self.launch {
            if launch.holder == Some(slot) {
                launch.holder = None;
                if launch.stage != Stage::Released {
                    self.give_launch_up(None);
                }
            }
        }
    }
}

/// A process that died before it could say why.
const DIED: ExecFailure = ExecFailure { step: ExecStep::Setup, errno: WireErrno::IO };
