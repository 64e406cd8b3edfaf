//! The commands that take nothing but a container: `start`, `state`, `pause`, `resume`.

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

pub(crate) fn start(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    run(runtime, "start", raw, |container| container.start())
}

pub(crate) fn pause(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    run(runtime, "pause", raw, |container| container.pause())
}

pub(crate) fn resume(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    run(runtime, "resume", raw, |container| container.resume())
}

pub(crate) fn state(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    run(runtime, "state", raw, |container| {
        // runc ends its answer without a line feed.
        container.oci_state().map(|state| print!("{state:#}"))
    })
}

fn run(
    runtime: &Runtime,
    command: &str,
    raw: &[OsString],
    work: impl FnOnce(&Container) -> Result<(), Error>,
) -> ExitCode {
    match runtime.parse::<Arguments>(command, raw) {
        Ok(arguments) => runtime.on(&arguments.id, command, raw, work),
        Err(code) => code,
    }
}
