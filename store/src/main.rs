//! `fastmig-store`: moves checkpoints between this host and a place for them. `fastmig` calls it, so that a program that
//! is started with every container need not carry what speaks to registries and object stores.
//!
//! | file | what it does |
//! |---|---|
//! | [`command_line`] | what was asked |
//! | [`commands`] | the commands |
//! | [`answer`] | what is said: text for people, a JSON document for programs |

#![forbid(unsafe_code)]

mod answer;
mod command_line;
mod commands;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{setrlimit, Resource, Rlimit};

use crate::answer::Answer;
use crate::command_line::CommandLine;

/// What an answer without end may cost, in bytes of address space: this program, and not the host's memory.
const MEMORY: u64 = 8 << 30;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    set_up_log();
    // What is written is for its owner alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    if let Err(e) = setrlimit(Resource::As, limit) {
        tracing::debug!(error = %e, "memory is not limited");
    }
    commands::run(line.command, Answer { json: line.json })
}

/// As in `fastmig`.
fn set_up_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FASTMIG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error,fastmig_store=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
}
