//! `fastmig`: an OCI runtime in front of runc, and the operator's commands on containers that run under FastMig.
//!
//! | room | what it is |
//! |---|---|
//! | [`command_line`] | what was asked: runc's global options, ours, and the command |
//! | [`oci`] | runc's commands, one file each: what FastMig adds nothing to is handed over to runc |
//! | [`commands`] | the operator's commands, one file each |
//! | [`output`] | answers and failures, for people and for programs |
//!
//! All of the mechanism is in the engine.

mod command_line;
mod commands;
mod oci;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::CommandLine;

fn main() -> ExitCode {
    if let Some(code) = fastmig_engine::keeper::run_if_asked() {
        return code;
    }
    let line = CommandLine::parse();
    set_up_log(line.global.debug);
    line.run()
}

/// What failed is said anyway; more with `FASTMIG_LOG=warn` or `--debug`, as JSON with `FASTMIG_LOG_FORMAT=json`.
fn set_up_log(debug: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FASTMIG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(if debug { "debug" } else { "error" }));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if std::env::var_os("FASTMIG_LOG_FORMAT").is_some_and(|format| format == "json") {
        lines.json().init();
    } else {
        lines.without_time().init();
    }
}
