//! `start`

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
    let arguments: Arguments = match runtime.parse("start", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match runtime.known(&arguments.id) {
        Ok(None) => runtime.hand_over("start", raw),
        Ok(Some(container)) => runtime.conclude(container.start().map(|()| ExitCode::SUCCESS)),
        Err(e) => runtime.conclude(Err(e)),
    }
}
