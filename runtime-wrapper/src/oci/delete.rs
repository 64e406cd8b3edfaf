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
    let arguments: Arguments = match runtime.parse("delete", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match runtime.known(&arguments.id) {
        Ok(None) => runtime.hand_over("delete", raw),
        Ok(Some(container)) => {
            runtime.conclude(container.delete(arguments.force).map(|()| ExitCode::SUCCESS))
        }
        Err(e) => runtime.conclude(Err(e)),
    }
}
