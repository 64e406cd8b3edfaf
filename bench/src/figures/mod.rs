//! What was measured: medians of interleaved runs with their spread, told as JSON, as a table and as charts.

mod machine;
mod samples;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

pub use machine::Machine;
pub use samples::{Figure, Samples, Subject};
pub use table::{markdown, ratio};

/// One run of benchmarks.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// What was measured, suite by suite.
    pub results: Vec<Figure>,
}

impl Report {
    /// Nothing yet, on this machine.
    pub fn new() -> Self {
        Self { machine: Machine::this(), results: Vec::new() }
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

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}
