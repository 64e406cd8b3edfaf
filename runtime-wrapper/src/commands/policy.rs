//! `fastmig policy test|show`: what a policy would decide, and what it says.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use fastmig_engine::{policy, Error};
use fastmig_policy::{parse_duration, signal_number, Decision, Facts, Output, Phase, Rules};
use serde_json::json;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what would become of an application that ends so
    Test(Test),
    /// Print a policy's rules, as they are in force on this host
    Show {
        /// Its name; all names when left out
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Test {
    /// A policy's name, or a file
    policy: String,
    /// As a shell reports it: 137 is SIGKILL
    #[arg(long, value_name = "CODE", default_value_t = 1)]
    exit_code: u8,
    /// The signal that killed it, instead of an exit code
    #[arg(long, value_name = "NAME", value_parser = signal_number, conflicts_with = "exit_code")]
    signal: Option<u8>,
    /// Memory ran out
    #[arg(long)]
    oom: bool,
    /// How long it ran: 500ms, 10s, 5m
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    ran_for: Duration,
    /// How often it has failed in the window, with this time
    #[arg(long, value_name = "N", default_value_t = 1)]
    failures: u32,
    /// normal, checkpointing, migrating; or restoring: a restore that failed
    #[arg(long, default_value = "normal")]
    phase: Phase,
    /// What it wrote: a log of docker's, Kubernetes', podman's, or plain text
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        match &self.verb {
            Verb::Test(test) => test.run(context)?,
            Verb::Show { name: Some(name) } => show(context, name)?,
            Verb::Show { name: None } => {
                let names = policy::names(&context.config);
                context.output.value(&names, |names| names.join("\n"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(context: &Context, name: &str) -> Result<(), Error> {
    // Also one that is wrong is worth a look, but not silently.
    let rules = policy::load(&context.config, name)?;
    let text = policy::text(&context.config, name)?;
    let answer = json!({ "name": name, "from": rules.name, "text": text });
    context.output.value(&answer, |_| text.trim_end().to_owned());
    Ok(())
}

impl Test {
    fn run(&self, context: &Context) -> Result<(), Error> {
        let rules = self.rules(context)?;
        let begun = Instant::now();
        let facts = self.facts(&rules)?;
        let decision = policy::decide(&rules, "none", "none", &facts);
        let took = begun.elapsed();
        let answer =
            json!({ "decision": decision, "took_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX) });
        context.output.value(&answer, |_| sentence(&decision, took));
        Ok(())
    }

    fn rules(&self, context: &Context) -> Result<Rules, Error> {
        if self.policy.contains(['/', '.']) {
            return Ok(Rules::from_file(Path::new(&self.policy))?);
        }
        policy::load(&context.config, &self.policy)
    }

    fn facts(&self, rules: &Rules) -> Result<Facts, Error> {
        let code = self.signal.map_or(self.exit_code, |signal| 128 + signal);
        let facts = if self.phase == Phase::Restoring { Facts::not_restored() } else { Facts::exited(code) };
        let output = match &self.log {
            None => Output::default(),
            Some(path) => Output::tail(path, rules.output_lines).map_err(|source| Error::Io {
                action: "read",
                path: path.clone(),
                source,
            })?,
        };
        Ok(Facts { oom: self.oom, phase: self.phase, output, ..facts }
            .after(self.ran_for)
            .failed(self.failures))
    }
}

fn sentence(decision: &Decision, took: Duration) -> String {
    let wait = if decision.delay.is_zero() { String::new() } else { format!(" after {:?}", decision.delay) };
    format!(
        "{}{wait}\n{}\ndecided in {:.1} ms",
        decision.action,
        decision.reason,
        took.as_secs_f64() * 1000.0
    )
}
