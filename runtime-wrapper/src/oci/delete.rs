//! `delete`

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::Runtime;

#[derive(Debug, Parser)]
struct Arguments {
    /// Kill it first if it runs
    #[arg(long, short)]
    force: bool,
    /// The container's id
    id: String,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    match runtime.parse::<Arguments>("delete", raw) {
        Ok(arguments) if arguments.force && runtime.is_half_made(&arguments.id) => {
            runtime.conclude(runtime.purge(&arguments.id).map(|()| ExitCode::SUCCESS))
        }
        Ok(arguments) => {
            runtime.on(&arguments.id, "delete", raw, |container| container.delete(arguments.force))
        }
        Err(code) => code,
    }
}
