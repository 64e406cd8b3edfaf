//! `state`

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use fastmig_engine::{Container, Error};

use super::Runtime;

#[derive(Debug, Parser)]
struct Arguments {
    /// The container's id
    id: String,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("state", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match runtime.warm(&arguments.id) {
        Ok(None) => runtime.hand_over("state", raw),
        Ok(Some(container)) => runtime.conclude(print(&container)),
        Err(e) => runtime.conclude(Err(e)),
    }
}

fn print(container: &Container) -> Result<ExitCode, Error> {
    let state = container.oci_state()?;
    // runc ends its answer without a line feed.
    print!("{state:#}");
    Ok(ExitCode::SUCCESS)
}
