//! A whole run, as JSON tells it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Figure, Machine, Verdict};

/// One run of benchmarks.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// What was measured, suite by suite.
    pub results: Vec<Figure>,
    /// What should be reached, and is or is not.
    pub targets: Vec<Verdict>,
    /// What could not be compared with, and why.
    pub left_out: Vec<LeftOut>,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

/// A tool that does not run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The suite that would have had it.
    pub suite: &'static str,
    /// The tool.
    pub tool: String,
    /// Why, as it was found out.
    pub reason: String,
}

/// A part of a suite that did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The suite.
    pub suite: &'static str,
    /// The part: a work and a tool, or nothing when it is the whole suite.
    pub part: String,
    /// What it said.
    pub error: String,
}

impl Report {
    /// The figure of this suite, work, tool and metric.
    pub fn find(&self, of: [&str; 4]) -> Option<&Figure> {
        find(&self.results, of)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The figure of this suite, work, tool and metric.
pub(super) fn find<'a>(figures: &'a [Figure], [suite, work, tool, metric]: [&str; 4]) -> Option<&'a Figure> {
    figures.iter().find(|figure| {
        let subject = figure.subject();
        subject.suite == suite && subject.work == work && subject.tool == tool && subject.metric == metric
    })
}
