//! `fastmigd`: all of it is in the library.

use std::process::ExitCode;

use clap::Parser;
use fastmigd::command_line::CommandLine;

fn main() -> ExitCode {
    if let Some(code) = fastmig_engine::keeper::run_if_asked() {
        return code;
    }
    if let Some(code) = fastmigd::filler::run_if_asked() {
        return code;
    }
    CommandLine::parse().run()
}
