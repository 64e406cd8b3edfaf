//! `--version`: ours, then runc's, which clients read for the version of the specification.

use std::process::ExitCode;

use super::Runtime;

pub(crate) fn run(runtime: &Runtime) -> ExitCode {
    println!("fastmig version {}", env!("CARGO_PKG_VERSION"));
    let mut command = runtime.command();
    command.arg("--version");
    runtime.become_it(command)
}
