//! The operator's commands, one file each: on any container of this host, by its id, its name or what its id begins
//! with, whichever client made it.

pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod completion;
pub(crate) mod config;
mod daemon;
pub(crate) mod events;
mod figures;
pub(crate) mod history;
pub(crate) mod install;
pub(crate) mod migrate;
pub(crate) mod policy;
mod program;
pub(crate) mod ps;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod standby;
pub(crate) mod start_options;
pub(crate) mod status;
pub(crate) mod store;

use std::process::ExitCode;
use std::sync::Arc;

use fastmig_engine::{state, Config, Container, Error, Kind};

use crate::oci::{Making, Runtime};
use crate::output::Output;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) namespace: Option<String>,
    pub(crate) output: Output,
}

impl Context {
    /// The container of this id or name, or whose id begins so.
    pub(crate) fn container(&self, id: &str) -> Result<Container, Error> {
        let key = state::find(&self.config, id, self.namespace.as_deref())?;
        Container::open(self.config.clone(), &key)
    }

    /// The exit code for an outcome, after saying why.
    pub(crate) fn conclude(&self, outcome: Result<ExitCode, Error>) -> ExitCode {
        outcome.unwrap_or_else(|e| {
            self.output.failure(&e);
            ExitCode::FAILURE
        })
    }
}

/// The container that a command of both worlds means, if FastMig knows it: with `--root` one of the client that gave
/// it, by its id; otherwise any, by its name too.
pub(crate) fn find(context: &Context, runtime: &Runtime, id: &str) -> Result<Option<Container>, Error> {
    if runtime.is_called_by_client() || !runtime.may_do_more() {
        return runtime.known(id);
    }
    match context.container(id) {
        Ok(container) => Ok(Some(container)),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// [`find`] for a command that can make a container as well: where there is a bundle to make it from, only a whole id
/// means one that stands.
pub(crate) fn find_or_make(
    context: &Context,
    runtime: &Runtime,
    making: &Making,
    id: &str,
) -> Result<Option<Container>, Error> {
    if making.bundle.is_some() {
        return runtime.known(id);
    }
    let found = find(context, runtime, id);
    if making.has_bundle() {
        return Ok(found.ok().flatten().filter(|container| container.key().id() == id));
    }
    found
}

/// Prints the report of an operation, or why there is none; for whoever uses us as runc, in runc's way: a success is
/// silent.
pub(crate) fn conclude<T>(
    context: &Context,
    runtime: &Runtime,
    outcome: Result<T, Error>,
    print: impl FnOnce(Output, &T),
) -> ExitCode {
    if runtime.is_called_by_client() {
        return runtime.conclude(outcome.map(|_| ExitCode::SUCCESS));
    }
    context.conclude(outcome.map(|report| {
        print(context.output, &report);
        ExitCode::SUCCESS
    }))
}
