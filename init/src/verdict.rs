//! An application that has ended, and a decision about it that is waited for.

use std::time::{Duration, Instant};

use fastmig_control::{ExitStatus, Signal};
use nix::poll::PollTimeout;

/// How long what comes up may take, once it has begun.
const COMING_UP: Duration = Duration::from_secs(600);

/// How long a signal that was passed on explains an end. Not SIGTERM: whoever is asked to end may take his time.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The decision that is waited for.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// How the application ended.
    pub(crate) status: ExitStatus,
    until: Instant,
}

impl Verdict {
    pub(crate) fn awaited(status: ExitStatus, patience: Duration) -> Self {
        Self { status, until: Instant::now() + patience }
    }

    /// It is waited for so long from now.
    pub(crate) fn postpone(&mut self, time: Duration) {
        self.until = Instant::now() + time;
    }

    /// What comes up is waited for; whoever decided that may die over it.
    pub(crate) fn comes_up(&mut self) {
        self.postpone(COMING_UP);
    }

    /// Whether it is too late for it.
    pub(crate) fn is_overdue(&self) -> bool {
        Instant::now() >= self.until
    }

    /// How long to sleep at most.
    pub(crate) fn left(&self) -> PollTimeout {
        let left = self.until.saturating_duration_since(Instant::now());
        // Rounded up: a sleep that ends a little early would only be followed by another.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }
}

/// The signals that were passed on to the application, which explain an end that the client wanted.
#[derive(Debug)]
pub(crate) struct PassedOn {
    last: [Option<Instant>; 65],
}

impl PassedOn {
    pub(crate) fn none() -> Self {
        Self { last: [None; 65] }
    }

    pub(crate) fn note(&mut self, signal: Signal) {
        if let Some(last) = usize::try_from(signal.get()).ok().and_then(|number| self.last.get_mut(number)) {
            *last = Some(Instant::now());
        }
    }

    /// Whether the client has asked for this end: by SIGTERM, a while ago by SIGINT or SIGQUIT, or by the very signal that has
    /// killed the application.
    pub(crate) fn explains(&self, status: ExitStatus) -> bool {
        let of = |number: i32| usize::try_from(number).ok().and_then(|number| *self.last.get(number)?);
        let lately = |number| of(number).is_some_and(|time| time.elapsed() < REMEMBERED);
        let killer = match status {
            ExitStatus::Signal(signal) => signal.get(),
            ExitStatus::Code(code) => i32::from(code) - 128,
        };
        of(libc::SIGTERM).is_some() || lately(libc::SIGINT) || lately(libc::SIGQUIT) || lately(killer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(passed: &[i32], status: ExitStatus) -> bool {
        let mut signals = PassedOn::none();
        for number in passed {
            signals.note(Signal::new(*number).unwrap());
        }
        signals.explains(status)
    }

    #[test]
    fn only_what_the_client_asked_for_is_explained() {
        let killed = |number| ExitStatus::Signal(Signal::new(number).unwrap());
        assert!(!after(&[], ExitStatus::Code(0)));
        assert!(!after(&[], ExitStatus::Code(143)));
        assert!(after(&[libc::SIGTERM], ExitStatus::Code(0)));
        assert!(after(&[libc::SIGINT], ExitStatus::Code(1)));
        assert!(!after(&[libc::SIGHUP], ExitStatus::Code(1)));
        assert!(after(&[libc::SIGHUP], killed(libc::SIGHUP)));
        assert!(after(&[libc::SIGUSR1], ExitStatus::Code(138)));
        assert!(!after(&[libc::SIGUSR1], killed(libc::SIGSEGV)));
        assert!(after(&[64], killed(64)));
    }

    #[test]
    fn a_verdict_is_overdue_in_the_end() {
        let mut verdict = Verdict::awaited(ExitStatus::Code(3), Duration::ZERO);
        assert!(verdict.is_overdue());
        verdict.comes_up();
        assert!(!verdict.is_overdue());
        assert!(verdict.left() > PollTimeout::from(60_000_u16));
    }
}
