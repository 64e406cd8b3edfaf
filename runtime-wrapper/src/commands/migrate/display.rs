//! What happens during a migration: one bar on a terminal, a line for each phase elsewhere, nothing for programs. All of
//! it on standard error, so that standard output holds the answer alone.

use std::fmt::Debug;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use fastmig_api::event::What;
use indicatif::{ProgressBar, ProgressStyle};

use crate::commands::events::describe;
use crate::commands::figures::{bytes, milliseconds};

/// How often the bar moves though nothing is heard.
const TICK: Duration = Duration::from_millis(200);

/// Somebody who is shown what happens.
pub(super) trait Display: Debug {
    fn event(&mut self, what: &What);
    fn note(&mut self, text: &str);
    fn end(&mut self);
}

pub(super) fn choose(json: bool) -> Box<dyn Display> {
    if json {
        Box::new(Silence)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar::new())
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
        What::PhaseEnded { phase, ms, .. } => Some(format!("{phase:<9} {:>9}", milliseconds(*ms))),
        What::Warning { .. } => Some(describe(what)),
        _ => None,
    }
}

/// The phase under way, and how far its bytes are.
#[derive(Debug)]
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}"));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }
}

impl Display for Bar {
    fn event(&mut self, what: &What) {
        match what {
            What::PhaseStarted { phase, frozen, .. } => {
                let frozen = if *frozen { " (frozen)" } else { "" };
                self.0.set_message(format!("{phase}{frozen}"));
            }
            What::Progress { done, total, rate, .. } if *total > 0 => {
                self.0.set_style(style("{spinner} {msg} [{bar:30}] {prefix} {elapsed}"));
                self.0.set_length(*total);
                self.0.set_position(*done.min(total));
                self.0.set_prefix(format!("{} of {}, {}/s", bytes(*done), bytes(*total), bytes(*rate)));
            }
            _ => {}
        }
        if let Some(line) = lasting(what) {
            self.note(&line);
        }
    }

    fn note(&mut self, text: &str) {
        self.0.println(text);
    }

    fn end(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use fastmig_api::migration::Side;

    use super::*;

    #[test]
    fn elsewhere_than_on_a_terminal_each_phase_is_a_line() {
        let mut lines = Lines(Vec::new());
        lines.event(&What::PhaseStarted { phase: "dump".into(), side: Side::Source, frozen: true });
        lines.event(&What::PhaseEnded { phase: "dump".into(), side: Side::Source, ms: 42 });
        lines.event(&What::Warning { message: "a hook failed".into() });
        let text = String::from_utf8(lines.0).unwrap();
        assert_eq!(text, "dump          42 ms\nwarning: a hook failed\n");
    }

    #[test]
    fn the_bars_templates_are_sound() {
        for template in ["{spinner} {msg} {elapsed}", "{spinner} {msg} [{bar:30}] {prefix} {elapsed}"] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
