//! Checkpoints that go to a store and come from one: `checkpoint --to`, `checkpoint --every`, `restore --from`, and
//! `checkpoints`.
//!
//! | file | what it does |
//! |---|---|
//! | `staging` | where they lie on their way |
//! | `every` | one after the other, at their times |

mod every;
mod staging;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use fastmig_engine::checkpoint::{self, After};
use fastmig_engine::{restore, Container, Error};
use serde::Serialize;
use serde_json::Value;

use self::staging::Staging;
use super::program::Program;
use super::Context;

/// Where a checkpoint goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of checkpoints at rest")]
#[command(group = ArgGroup::new("stored").args(["to", "every"]).multiple(true))]
pub(crate) struct Target {
    /// Store it: /DIR/NAME, s3://BUCKET/PREFIX/NAME, oci://REGISTRY/REPOSITORY:NAME, or store:NAME for the place in the
    /// settings; a name is made where none is
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["image_path", "work_path"])]
    to: Option<String>,
    /// Encrypt it to the recipients in the settings
    #[arg(long, requires = "stored")]
    encrypt: bool,
    /// Let so many stored checkpoints of this container stay
    #[arg(long, value_name = "N", requires = "stored", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Store one now and then one each time, such as 5m; the application runs on. A signal ends it
    #[arg(long, value_name = "TIME", conflicts_with_all = ["standby", "image_path", "work_path"], value_parser = fastmig_engine::config::periodic::interval)]
    every: Option<Duration>,
}

/// Where a checkpoint comes from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of checkpoints at rest")]
pub(crate) struct Origin {
    /// A stored checkpoint, as checkpoint --to names it; without a name the youngest of this container
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["image_path", "work_path"])]
    from: Option<String>,
    /// The youngest of the container that had this name where it was stored
    #[arg(long, value_name = "NAME", requires = "from")]
    of: Option<String>,
}

/// Why a checkpoint did not get to its place, or from there.
#[derive(Debug)]
enum Failure {
    Engine(Error),
    /// In the words of `fastmig-store`.
    Store(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// What a stored checkpoint came to.
#[derive(Debug, Serialize)]
struct Stored {
    #[serde(flatten)]
    taken: checkpoint::Report,
    /// What `fastmig-store` says.
    stored: Value,
}

impl Target {
    /// Whether the checkpoint goes to a store at all.
    pub(crate) fn is_given(&self) -> bool {
        self.to.is_some() || self.every.is_some()
    }

    /// Checkpoints the container that `id` means, and stores what comes of it.
    pub(crate) fn run(&self, context: &Context, id: &str, mut request: checkpoint::Request) -> ExitCode {
        if self.every.is_some() {
            request.after = After::Run;
        }
        // Periodic ones replace each other there: what the next has in common with the last is not written again.
        request.replaces = self.every.is_some();
        let mut last = None;
        let mut once = || match self.store(context, id, &request, &mut last) {
            Ok(stored) => {
                context.output.value(&stored, describe);
                ExitCode::SUCCESS
            }
            Err(e) => context.fail(&e),
        };
        match self.every {
            None => once(),
            Some(interval) => every::run(interval, || {
                // One that fails has changed nothing, and the next may not.
                let _ = once();
            }),
        }
    }

    /// Takes one, in the place of the `last` of several.
    fn store(
        &self,
        context: &Context,
        id: &str,
        request: &checkpoint::Request,
        last: &mut Option<Staging>,
    ) -> Result<Stored, Failure> {
        let container = context.container(id)?;
        let name = name_of(&container)?;
        let staging = last.take().map_or_else(|| Staging::begin(&context.config.store.staging), Ok)?;
        let request = checkpoint::Request { path: staging.path(), ..request.clone() };
        let mut taken = fastmig_hooks::checkpoint(&container, &request)?;
        let location = self.to.as_deref().unwrap_or("store:");
        let location = if self.every.is_some() { as_place(location) } else { location.into() };
        let mut options: Vec<OsString> = vec![request.path.clone().into(), location.into()];
        options.extend(["--container".into(), name.clone().into()]);
        options.extend(self.encrypt.then(|| "--encrypt".into()));
        options.extend(self.keep.into_iter().flat_map(|count| ["--keep".into(), count.to_string().into()]));
        match Program::store().and_then(|program| program.call("push", &options)) {
            Ok(stored) => {
                *last = self.every.is_some().then_some(staging);
                taken.path = stored["location"].as_str().unwrap_or_default().into();
                Ok(Stored { taken, stored })
            }
            Err(words) if taken.after == After::Run => Err(Failure::Store(words)),
            // It is all that is left of the application.
            Err(words) => Err(Failure::Store(format!("{words}; {}", rescue(staging, &name)))),
        }
    }
}

fn rescue(staging: Staging, name: &str) -> String {
    let path = staging.keep(name);
    let path = path.display();
    format!(
        "the application has left its container, and its checkpoint is in {path}: store it with `fastmig checkpoints push \
         {path} LOCATION --container {name}`, or bring it up again with `fastmig restore {name} --image-path {path}`"
    )
}

/// Each has a name of its own: what is given is a place.
fn as_place(location: &str) -> String {
    if location.starts_with("oci://") || location.starts_with("store:") || location.ends_with('/') {
        return location.into();
    }
    format!("{location}/")
}

fn describe(stored: &Stored) -> String {
    let Stored { taken, stored } = stored;
    format!(
        "{} processes, {} bytes stored as {} in {}, frozen for {} ms",
        taken.processes,
        taken.bytes,
        stored["stored"],
        taken.path.display(),
        taken.frozen_ms
    )
}

impl Origin {
    /// Whether the checkpoint comes from a store at all.
    pub(crate) fn is_given(&self) -> bool {
        self.from.is_some()
    }

    /// Fetches the checkpoint and restores it into `container`.
    pub(crate) fn run(
        &self,
        context: &Context,
        container: &Container,
        request: &restore::Request,
    ) -> ExitCode {
        match self.restore(context, container, request) {
            Ok(report) => {
                super::restore::print(context.output, &report);
                ExitCode::SUCCESS
            }
            Err(e) => context.fail(&e),
        }
    }

    fn restore(
        &self,
        context: &Context,
        container: &Container,
        request: &restore::Request,
    ) -> Result<restore::Report, Failure> {
        let staging = Staging::begin(&context.config.store.staging)?;
        let of = self.of.clone().map_or_else(|| name_of(container), Ok)?;
        let location = self.from.as_deref().unwrap_or_default();
        let options = [location.into(), staging.path().into(), "--container".into(), of.into()];
        let pulled =
            Program::store().and_then(|program| program.call("pull", &options)).map_err(Failure::Store)?;
        let mut report =
            fastmig_hooks::restore(container, &restore::Request { path: staging.path(), ..request.clone() })?;
        report.path = pulled["location"].as_str().unwrap_or_default().into();
        Ok(report)
    }
}

/// What its client calls it: the same on another host, where its id differs.
fn name_of(container: &Container) -> Result<String, Error> {
    let status = container.status()?;
    Ok(status.names.into_iter().next().unwrap_or(status.id))
}

/// `fastmig checkpoints ...`: becomes `fastmig-store`.
pub(crate) fn checkpoints(context: &Context, arguments: &[OsString]) -> ExitCode {
    let words = match Program::store() {
        Ok(program) => program.become_it(arguments, context.output.json),
        Err(words) => words,
    };
    context.output.failure_text(&words);
    ExitCode::FAILURE
}

impl Context {
    fn fail(&self, failure: &Failure) -> ExitCode {
        match failure {
            Failure::Engine(e) => self.output.failure(e),
            Failure::Store(words) => self.output.failure_text(words),
        }
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_again_and_again_goes_to_a_place() {
        for (location, place) in [
            ("/var/backup", "/var/backup/"),
            ("s3://b/p/", "s3://b/p/"),
            ("s3://b/p", "s3://b/p/"),
            ("oci://r/p", "oci://r/p"),
            ("store:", "store:"),
        ] {
            assert_eq!(as_place(location), place);
        }
    }
}
