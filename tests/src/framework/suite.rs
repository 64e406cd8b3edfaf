//! Runs the cases of a suite, one after the other, and counts how they end.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

use anyhow::{anyhow, Error, Result};

use super::failures;
use super::session::Session;

/// How a case ended.
#[derive(Debug)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// With this error.
    Failed(Error),
    /// Not run, for this reason.
    Skipped(String),
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

/// One thing to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it shows, in few words.
    pub name: &'static str,
    /// Shows it.
    pub run: fn(&Ctx) -> Outcome,
}

/// What a case may use, and what of the suite is wanted.
#[derive(Debug, Default)]
pub struct Ctx {
    only: Option<String>,
    retries: u32,
    brief: bool,
    session: OnceCell<Session>,
}

impl Ctx {
    /// For all cases, or for those with `only` in their name.
    pub fn new(only: Option<String>) -> Self {
        Self { only, retries: 0, brief: false, session: OnceCell::new() }
    }

    /// A case that fails is tried again up to so many times; each failure is printed all the same. For machines that
    /// others share, where a limit may pass without anybody's fault.
    #[must_use]
    pub fn with_retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// Of suites that know what of theirs is most worth its time, that alone.
    #[must_use]
    pub fn in_brief(self, brief: bool) -> Self {
        Self { brief, ..self }
    }

    /// See [`Ctx::in_brief`].
    pub fn is_brief(&self) -> bool {
        self.brief
    }

    /// See [`Ctx::with_retries`].
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The run's hosts, from the first case that asks on.
    pub fn session(&self) -> Result<&Session> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let session = Session::start()?;
        Ok(self.session.get_or_init(|| session))
    }

    /// Whether a case of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// How many cases ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// As they should.
    pub passed: usize,
    /// With an error.
    pub failed: usize,
    /// Not at all.
    pub skipped: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Runs those of `cases` that are wanted; prints a line for each, and why it failed or was skipped.
pub fn run_cases(suite: &str, ctx: &Ctx, cases: &[Case]) -> Tally {
    let mut tally = Tally::default();
    for case in cases.iter().filter(|case| ctx.wants(case.name)) {
        let start = Instant::now();
        let mut outcome = attempt(case, ctx);
        for _ in 0..ctx.retries {
            let Outcome::Failed(error) = &outcome else { break };
            println!("{suite}: {} ... FAILED, trying again\n    {error:#}", case.name);
            outcome = attempt(case, ctx);
        }
        let (count, word) = match &outcome {
            Outcome::Passed => (&mut tally.passed, "ok"),
            Outcome::Failed(_) => (&mut tally.failed, "FAILED"),
            Outcome::Skipped(_) => (&mut tally.skipped, "skipped"),
        };
        *count += 1;
        println!("{suite}: {} ... {word} ({:.2} s)", case.name, start.elapsed().as_secs_f64());
        match outcome {
            Outcome::Passed => {}
            Outcome::Failed(error) => {
                let error = format!("{error:#}");
                println!("    {}", error.replace('\n', "\n    "));
                failures::note(suite, case.name, &error);
            }
            Outcome::Skipped(reason) => println!("    {reason}"),
        }
    }
    tally
}

fn attempt(case: &Case, ctx: &Ctx) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| (case.run)(ctx)))
        .unwrap_or_else(|panic| Outcome::Failed(anyhow!("panicked: {}", panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const CASES: &[Case] = &[
        Case { name: "good", run: |_| Outcome::Passed },
        Case { name: "bad", run: |_| Err(anyhow!("no")).into() },
        Case { name: "panics", run: |_| panic!("on purpose") },
        Case { name: "lacks", run: |_| Outcome::Skipped("no kernel".into()) },
    ];

    #[test]
    fn every_outcome_is_counted_and_a_panic_is_a_failure() {
        let tally = run_cases("self", &Ctx::default(), CASES);
        assert_eq!(tally, Tally { passed: 1, failed: 2, skipped: 1 });
        assert_eq!(tally.to_string(), "1 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_retry_saves_only_what_then_passes() {
        static TRIES: AtomicU32 = AtomicU32::new(0);
        let second = Case {
            name: "second",
            run: |_| match TRIES.fetch_add(1, Ordering::Relaxed) {
                0 => Err(anyhow!("busy")).into(),
                _ => Outcome::Passed,
            },
        };
        let tally = run_cases("self", &Ctx::default().with_retries(1), &[second, CASES[1]]);
        assert_eq!(tally, Tally { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_filter_leaves_the_others_out() {
        assert_eq!(
            run_cases("self", &Ctx::new(Some("goo".into())), CASES),
            Tally { passed: 1, ..Tally::default() }
        );
    }
}
