//! What happens during a migration: one bar on a terminal, a line for each phase elsewhere, nothing for programs. All of
//! it on standard error, so that standard output holds the answer alone.
//!
//! The bar is our own: indicatif brings libm into a program that runs for every command of every container.

use std::fmt::Debug;
use std::io::{IsTerminal, Write};
use std::time::Instant;

use fastmig_api::event::What;

use crate::commands::events::describe;
use crate::commands::figures::{bytes, milliseconds, plain};

/// Somebody who is shown what happens.
pub(super) trait Display: Debug {
    fn event(&mut self, what: &What);
    /// Nothing happened for a while.
    fn tick(&mut self) {}
    fn note(&mut self, text: &str);
    fn end(&mut self);
}

pub(super) fn choose(json: bool) -> Box<dyn Display> {
    if json {
        Box::new(Silence)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar::new(std::io::stderr()))
    } else {
        Box::new(Lines(std::io::stderr()))
    }
}

/// Programs read the answer.
#[derive(Debug)]
struct Silence;

impl Display for Silence {
    fn event(&mut self, _: &What) {}
    fn note(&mut self, _: &str) {}
    fn end(&mut self) {}
}

/// A line for each phase that has ended.
#[derive(Debug)]
pub(super) struct Lines<W>(pub(super) W);

impl<W: Write + Debug> Display for Lines<W> {
    fn event(&mut self, what: &What) {
        if let Some(line) = lasting(what) {
            self.note(&line);
        }
    }

    fn note(&mut self, text: &str) {
        // Who has closed it does not want to see it.
        let _ = writeln!(self.0, "{text}");
    }

    fn end(&mut self) {}
}

/// What is still worth a line when it is over.
fn lasting(what: &What) -> Option<String> {
    match what {
        // Told a few times a second: the last word of it is all that is worth a line.
        What::MemoryFollows { owed, done, .. } if done < owed => None,
        What::MemoryFollows { .. } => Some(describe(what)),
        // Where nothing had to be done there is nothing to say: hooks that are not configured.
        What::PhaseEnded { ms: 0, .. } => None,
        What::PhaseEnded { phase, ms, .. } => Some(plain(&format!("{phase:<15} {:>9}", milliseconds(*ms)))),
        What::RoundEnded(_) | What::StrategyChosen { .. } | What::Throttled { .. } | What::Warning { .. } => {
            Some(plain(&describe(what)))
        }
        _ => None,
    }
}

/// One line that is written over and over: the phase under way, and how far its bytes are. Notes stay above it.
#[derive(Debug)]
struct Bar<W> {
    out: W,
    since: Instant,
    phase: String,
    bytes: String,
}

/// Back to the beginning of the line, and all of it gone. What follows must not wrap, or it could not be taken back.
const CLEAR: &str = "\r\x1b[2K\x1b[?7l";
/// Lines wrap again.
const WRAP: &str = "\x1b[?7h";

impl<W: Write + Debug> Bar<W> {
    fn new(out: W) -> Self {
        Self { out, since: Instant::now(), phase: "asking".into(), bytes: String::new() }
    }

    fn paint(&mut self) {
        let seconds = self.since.elapsed().as_secs();
        self.write(&format!("{CLEAR}{:>3} s  {}{}{WRAP}", seconds, self.phase, self.bytes));
    }

    fn write(&mut self, text: &str) {
        // Who has closed it does not want to see it.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

impl<W: Write + Debug> Display for Bar<W> {
    fn event(&mut self, what: &What) {
        match what {
            What::PhaseStarted { phase, frozen, .. } => {
                self.phase = plain(&if *frozen { format!("{phase} (frozen)") } else { phase.clone() });
                self.bytes.clear();
            }
            What::Progress { done, total, rate, .. } if *total > 0 => {
                let figures = format!("{} of {}, {}/s", bytes(*done), bytes(*total), bytes(*rate));
                self.bytes = format!("  [{}] {figures}", blocks(*done, *total));
            }
            What::MemoryFollows { owed, done, faults, .. } => {
                let figures = format!("{} of {}, waited for {faults} times", bytes(*done), bytes(*owed));
                self.bytes = format!("  [{}] {figures}", blocks(*done, *owed));
            }
            _ => {}
        }
        match lasting(what) {
            Some(line) => self.note(&line),
            None => self.paint(),
        }
    }

    fn tick(&mut self) {
        self.paint();
    }

    fn note(&mut self, text: &str) {
        self.write(&format!("{CLEAR}{WRAP}{text}\n"));
        self.paint();
    }

    fn end(&mut self) {
        self.write(&format!("{CLEAR}{WRAP}"));
    }
}

/// How much of it is done, as `####....`.
fn blocks(done: u64, total: u64) -> String {
    const WIDTH: usize = 30;
    let full = u128::from(done.min(total)) * WIDTH as u128 / u128::from(total.max(1));
    (0..WIDTH as u128).map(|at| if at < full { '#' } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use fastmig_api::migration::{Round, Side};
    use fastmig_api::request::Strategy;

    use super::*;

    #[test]
    fn elsewhere_than_on_a_terminal_each_phase_is_a_line() {
        let mut lines = Lines(Vec::new());
        lines.event(&What::PhaseStarted { phase: "dump".into(), side: Side::Source, frozen: true });
        lines.event(&What::PhaseEnded { phase: "dump".into(), side: Side::Source, ms: 42 });
        lines.event(&What::PhaseEnded { phase: "pre-restore".into(), side: Side::Source, ms: 0 });
        lines.event(&What::Warning { message: "a hook failed".into() });
        let text = String::from_utf8(lines.0).unwrap();
        assert_eq!(text, "dump                42 ms\nwarning: a hook failed\n");
    }

    #[test]
    fn each_round_is_a_line() {
        let mut lines = Lines(Vec::new());
        lines.event(&What::StrategyChosen { strategy: Strategy::PreCopy, why: "asked for".into() });
        let first = Round {
            round: 1,
            bytes: 1 << 30,
            scan_ms: 17,
            ms: 9_300,
            rate: 110 << 20,
            dirty_rate: None,
            predicted_freeze_ms: Some(9_300),
        };
        lines.event(&What::RoundEnded(first));
        let second = Round {
            round: 2,
            bytes: 93 << 20,
            ms: 850,
            dirty_rate: Some(10 << 20),
            predicted_freeze_ms: Some(104),
            ..first
        };
        lines.event(&What::RoundEnded(second));
        lines.event(&What::Throttled { percent: 20 });
        lines.event(&What::MemoryFollows { owed: 9 << 20, done: 1 << 20, faults: 1, ms: 20 });
        lines.event(&What::MemoryFollows { owed: 9 << 20, done: 9 << 20, faults: 7, ms: 90 });
        let text = String::from_utf8(lines.0).unwrap();
        let expected = [
            "strategy pre-copy: asked for",
            "round 1            9.30 s      1024.0 MiB at   110.0 MiB/s",
            "round 2            850 ms        93.0 MiB at   110.0 MiB/s, written    10.0 MiB/s, freeze now 104 ms",
            "it writes faster than its memory travels: 20% of the processor is taken from it",
            "it runs there: 9.0 of 9.0 MiB have followed after 90 ms, it waited 7 times",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_bar_is_written_over_and_its_notes_stay() {
        let mut bar = Bar::new(Vec::new());
        bar.event(&What::PhaseStarted { phase: "restore".into(), side: Side::Source, frozen: true });
        bar.event(&What::Progress { phase: "restore".into(), done: 512, total: 1024, wire: 1, rate: 2048 });
        bar.note("a note");
        bar.end();
        let text = String::from_utf8(bar.out).unwrap();
        assert!(
            text.contains("restore (frozen)  [###############...............] 512 B of 1.0 KiB, 2.0 KiB/s")
        );
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.contains("a note\n") && text.ends_with(&format!("{CLEAR}{WRAP}")), "{text:?}");
    }

    #[test]
    fn blocks_never_leave_the_bar() {
        for (done, total) in [(0, 0), (5, 0), (0, 7), (7, 7), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
            assert_eq!(blocks(done, total).len(), 30);
        }
        assert!(!blocks(7, 7).contains('.'));
    }
}
