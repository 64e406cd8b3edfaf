//! `fastmig standby CONTAINER`

use std::process::ExitCode;

use clap::Args;
use fastmig_engine::Error;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The container's id, or what it begins with
    container: String,
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        let container = context.container(&self.container)?;
        container.standby()?;
        context.output.value(&container.status()?, |status| format!("{} is in standby", status.id));
        Ok(ExitCode::SUCCESS)
    }
}
