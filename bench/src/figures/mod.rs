//! What was measured: medians of interleaved runs with their spread, told as JSON, as tables and as charts.

mod book;
mod fit;
mod machine;
mod report;
mod samples;
mod summary;
mod table;
mod targets;

pub use book::Book;
pub use fit::{fit, Fit};
pub use machine::Machine;
pub use report::{Failure, LeftOut, Report};
pub use samples::{Figure, Samples, Subject};
pub use summary::{summary, verdicts};
pub use table::{markdown, ratio};
pub use targets::{judge, Verdict};

/// What is measured, and in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name: `gap`.
    pub name: &'static str,
    /// `ms`, `MiB`, `s`, ...
    pub unit: &'static str,
}

impl Metric {
    /// A metric.
    pub const fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit }
    }
}

/// Names without those that came before, in their order.
fn each_once<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut once = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}
