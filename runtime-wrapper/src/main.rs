//! `fastmig`: the operator's commands on containers that run under FastMig.
//!
//! Each command is a file in [`commands`]; all of the mechanism is in the engine.

mod commands;
mod output;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fastmig_engine::{Config, Error};

use crate::commands::Command;
use crate::output::Output;

/// Checkpoint, restore and stand by: the application travels, its container stays.
#[derive(Debug, Parser)]
#[command(name = "fastmig", version, about, max_term_width = 100)]
struct Arguments {
    /// Answer with one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// The namespace of the container (containerd's); needed only when the id is not unique.
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    set_up_log();
    let output = Output { json: arguments.json };
    match run(&arguments, output) {
        Ok(code) => code,
        Err(e) => {
            output.failure(&e);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Error> {
    let config = Arc::new(Config::load()?);
    let context = commands::Context { config, namespace: arguments.namespace.clone(), output };
    arguments.command.run(&context)
}

/// Warnings on stderr; more with `FASTMIG_LOG=debug`.
fn set_up_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FASTMIG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
}
