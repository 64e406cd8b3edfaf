//! The commands, one file each.

mod check;
mod checkpoint;
mod restore;
mod run;
mod standby;
mod status;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use fastmig_engine::{state, Config, Container, Error};

use crate::output::Output;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) namespace: Option<String>,
    pub(crate) output: Output,
}

impl Context {
    /// The container whose id is `id` or begins with it.
    pub(crate) fn container(&self, id: &str) -> Result<Container, Error> {
        let key = state::find(&self.config, id, self.namespace.as_deref())?;
        Container::open(self.config.clone(), &key)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Save the application's state to a directory
    Checkpoint(checkpoint::Arguments),
    /// Bring a saved application up in a container that is in standby
    Restore(restore::Arguments),
    /// End the application and keep its container up
    Standby(standby::Arguments),
    /// Start the image's command in a container that is in standby
    Run(run::Arguments),
    /// Show how one container stands, or all of them
    Status(status::Arguments),
    /// Say what would make a checkpoint fail, without stopping anything
    Check(check::Arguments),
}

impl Command {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        match self {
            Self::Checkpoint(arguments) => arguments.run(context),
            Self::Restore(arguments) => arguments.run(context),
            Self::Standby(arguments) => arguments.run(context),
            Self::Run(arguments) => arguments.run(context),
            Self::Status(arguments) => arguments.run(context),
            Self::Check(arguments) => arguments.run(context),
        }
    }
}
