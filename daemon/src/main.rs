//! `fastmigd`: all of it is in the library.

use std::process::ExitCode;

use clap::Parser;
use fastmigd::command_line::CommandLine;

fn main() -> ExitCode {
    CommandLine::parse().run()
}
