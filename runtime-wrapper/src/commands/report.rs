//! `fastmig report`: migrations as a page with charts. `fastmig-report` makes it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::program::Program;
use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show only the migration whose id begins so
    #[arg(value_name = "MIGRATION")]
    id: Option<String>,
    /// Write the page there [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read what `fastmig migrate --json` or `fastmig history --json` printed, in place of asking fastmigd
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Show at most so many, the latest
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "from")]
    limit: usize,
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> ExitCode {
        let input = match &self.from {
            Some(file) => fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display())),
            None => match context.daemon().migrations(self.limit) {
                Ok(migrations) => Ok(json!({ "migrations": migrations }).to_string().into_bytes()),
                Err(e) => return context.daemon_failed(&e),
            },
        };
        let id: Vec<String> = self.id.iter().cloned().collect();
        let made =
            input.and_then(|input| Program::report()?.filter(input, &id)).and_then(|page| self.write(&page));
        match made {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                context.output.failure_text(&format!("there is no report: {reason}"));
                ExitCode::FAILURE
            }
        }
    }

    fn write(&self, page: &[u8]) -> Result<(), String> {
        match &self.output {
            None => std::io::stdout().lock().write_all(page).map_err(|e| format!("cannot write it: {e}")),
            Some(file) => save(file, page).map_err(|e| format!("cannot write {}: {e}", file.display())),
        }
    }
}

/// It names containers and hosts: for its owner, who may give it away.
fn save(file: &Path, page: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(page)
}
