//! `pause`

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::Runtime;

#[derive(Debug, Parser)]
struct Arguments {
    /// The container's id
    id: String,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("pause", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match runtime.warm(&arguments.id) {
        Ok(None) => runtime.hand_over("pause", raw),
        Ok(Some(container)) => runtime.conclude(container.pause().map(|()| ExitCode::SUCCESS)),
        Err(e) => runtime.conclude(Err(e)),
    }
}
