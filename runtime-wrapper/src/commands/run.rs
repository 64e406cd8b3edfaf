//! `fastmig run CONTAINER`, for a container that is in standby.

use std::process::ExitCode;

use fastmig_engine::{Container, Error};

use super::Context;

pub(crate) fn run(context: &Context, container: &Container) -> Result<ExitCode, Error> {
    container.run()?;
    context.output.value(&container.status()?, |status| format!("{} is running", status.id));
    Ok(ExitCode::SUCCESS)
}
