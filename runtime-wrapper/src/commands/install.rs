//! `fastmig install [--dry-run] [--uninstall]`: what the clients of this host need to find FastMig.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fastmig_engine::{state, Config};
use fastmig_install::{install, preview, uninstall, Change, Error, Outcome, Site, Source};
use serde_json::json;

use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show each change, and make none
    #[arg(long)]
    dry_run: bool,
    /// Take back what was installed
    #[arg(long)]
    uninstall: bool,
    /// Take it back even though containers still run under FastMig
    #[arg(long, requires = "uninstall")]
    force: bool,
    /// Install into the tree below this directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Where the programs are: a directory with bin/ and libexec/ [default: the one that this program lies in]
    #[arg(long, value_name = "DIR", conflicts_with = "uninstall")]
    from: Option<PathBuf>,
}

impl Arguments {
    /// The host's configuration may be wrong or not there yet, so it is not read.
    pub(crate) fn run(&self, output: Output) -> ExitCode {
        let site = match Site::new(&self.root) {
            Ok(site) => site,
            Err(e) => return fail(&e.to_string(), output),
        };
        let outcome = match (self.uninstall, self.dry_run) {
            (false, true) => return self.show(&site, output),
            (false, false) => self.source(&site).and_then(|source| install(&site, &source, &mut |_| {})),
            (true, true) => uninstall::preview(&site),
            (true, false) => match self.containers(&site) {
                Ok(containers) if containers.is_empty() => uninstall::uninstall(&site),
                Ok(containers) => return refuse(&containers, output),
                Err(e) => {
                    let text =
                        format!("cannot tell which containers run: {}; mend it, or say --force", e.report());
                    return fail(&text, output);
                }
            },
        };
        match outcome {
            Ok(outcome) => {
                output.value(&outcome, text);
                ExitCode::SUCCESS
            }
            Err(e) => fail(&e.to_string(), output),
        }
    }

    fn show(&self, site: &Site, output: Output) -> ExitCode {
        match self.source(site).and_then(|source| preview(site, &source)) {
            Ok(plan) => {
                let changes: Vec<String> = plan.changes.iter().map(Change::line).collect();
                let diffs: Vec<String> = plan.changes.iter().filter_map(Change::diff).collect();
                let outcome = Outcome { changes, notes: plan.notes, restart: plan.restart };
                let answer = json!({ "would": &outcome, "diffs": &diffs });
                output.value(&answer, |_| format!("{}{}", diffs.concat(), text(&outcome)));
                ExitCode::SUCCESS
            }
            Err(e) => fail(&e.to_string(), output),
        }
    }

    fn source(&self, site: &Site) -> Result<Source, Error> {
        match &self.from {
            Some(from) => Source::directory(from),
            None => Source::of_program(&std::env::current_exe().unwrap_or_default(), site),
        }
    }

    /// Those that nobody could delete properly afterwards.
    fn containers(&self, site: &Site) -> Result<Vec<String>, fastmig_engine::Error> {
        if self.force || !site.is_this_host() {
            return Ok(Vec::new());
        }
        let keys = state::list(&Config::load()?)?;
        Ok(keys.iter().map(|key| format!("{}/{}", key.namespace(), key.id())).collect())
    }
}

fn refuse(containers: &[String], output: Output) -> ExitCode {
    let names = containers.join(", ");
    fail(&format!("containers still run under FastMig: {names}; remove them first, or say --force"), output)
}

fn fail(text: &str, output: Output) -> ExitCode {
    output.failure_text(text);
    ExitCode::FAILURE
}

fn text(outcome: &Outcome) -> String {
    let mut lines = outcome.changes.clone();
    if lines.is_empty() {
        lines.push("nothing to do".into());
    }
    lines.extend(outcome.notes.iter().map(|note| format!("note: {note}")));
    if !outcome.restart.is_empty() {
        lines.push(format!("to take effect: systemctl restart {}", outcome.restart.join(" ")));
    }
    lines.join("\n")
}
