//! `run`: creates and starts a container; or, for a container that is in standby, starts its command again.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use fastmig_engine::start_options::StartMode;
use fastmig_engine::{Container, Error};

use super::{attend, Making, Runtime};
use crate::commands::{self, Context};

#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    running: Running,
    /// The new container's id; or the id or name of one that is in standby
    id: String,
}

/// What `run` and `restore` have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Running {
    /// Return when it runs
    #[arg(long, short)]
    detach: bool,
    /// Do not delete it when it ends
    #[arg(long)]
    keep: bool,
    /// Do not take its orphans over
    #[arg(long)]
    no_subreaper: bool,
}

pub(crate) fn run(context: &Context, runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    if !runtime.may_do_more() {
        return runtime.hand_over("run", raw);
    }
    let arguments: Arguments = match runtime.parse("run", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    // runc has no use for the name of a container that is there.
    if runtime.global.root.is_none() && arguments.making.bundle.is_none() {
        match commands::find_or_make(context, runtime, &arguments.making, &arguments.id) {
            Ok(Some(container)) => return context.conclude(commands::run::run(context, &container)),
            Ok(None) if !arguments.making.has_bundle() => {
                return context.conclude(Err(Error::NotFound { id: arguments.id }));
            }
            Ok(None) => {}
            Err(e) => return context.conclude(Err(e)),
        }
    }
    runtime.conclude(bring_up(runtime, &arguments.making, &arguments.running, &arguments.id, None))
}

/// Creates and starts, as the annotations say or as `start` does.
pub(crate) fn bring_up(
    runtime: &Runtime,
    making: &Making,
    running: &Running,
    id: &str,
    start: Option<StartMode>,
) -> Result<ExitCode, Error> {
    let request = making.request(runtime, id, start)?;
    let key = request.key.clone();
    if !running.detach {
        let prepared = Container::prepare(runtime.config.clone(), request)?;
        let mut options = Vec::new();
        options.extend(running.keep.then_some("--keep"));
        options.extend(running.no_subreaper.then_some("--no-subreaper"));
        return attend::become_runc(runtime, prepared, &key, &options, running.keep);
    }
    let container = Container::create(runtime.config.clone(), request)?;
    if let Err(e) = container.start() {
        // As runc: what does not start is not left behind.
        if let Err(left) = container.delete(true) {
            tracing::warn!(container = id, error = %left.report(), "a container that did not start stays");
        }
        return Err(e);
    }
    Ok(ExitCode::SUCCESS)
}
