//! `restore`: into a container that is in standby, as an operator asks; or into a new one made from a bundle, as runc.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fastmig_engine::checkpoint::Tcp;
use fastmig_engine::restore::Request;
use fastmig_engine::start_options::StartMode;
use fastmig_engine::{Container, Error};

use super::ignored::Ignored;
use super::run::{bring_up, Running};
use super::{absolute, Making, Runtime};
use crate::commands::{self, Context};

/// The options have runc's names and meanings.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// The id or name of a container in standby, or what its id begins with; or a new container's id
    id: String,
    /// The checkpoint
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Where CRIU's log is put too, should it fail
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Keep established TCP connections; the checkpoint must have kept them too
    #[arg(long)]
    tcp_established: bool,
    /// Let the application run before all of its memory is read, what it touches first; of a checkpoint taken in rounds
    #[arg(long)]
    lazy_pages: bool,
    #[command(flatten)]
    stored: commands::store::Origin,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    ignored: Ignored,
    /// The container has labels of its own
    #[arg(long, value_name = "LABEL", help_heading = "Taken for runc's sake, without effect")]
    lsm_profile: Option<String>,
    /// The container has labels of its own
    #[arg(long, value_name = "CONTEXT", help_heading = "Taken for runc's sake, without effect")]
    lsm_mount_context: Option<String>,
}

pub(crate) fn run(context: &Context, runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("restore", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let found = match commands::find_or_make(context, runtime, &arguments.making, &arguments.id) {
        Ok(found) => found,
        Err(e) => return context.conclude(Err(e)),
    };
    match found {
        Some(container) => arguments.restore_standing(context, runtime, &container),
        None if arguments.stored.is_given() => context.conclude(Err(Error::NotFound { id: arguments.id })),
        // A person means a container that stands, unless there is a bundle to make one from.
        None if !runtime.is_called_by_client() && !arguments.making.has_bundle() => {
            context.conclude(Err(Error::NotFound { id: arguments.id }))
        }
        // runc's own checkpoints have no manifest, and runc alone can restore them.
        None if !runtime.may_do_more() || !fastmig_engine::image::is_ours(&arguments.image_path) => {
            runtime.hand_over("restore", raw)
        }
        None if arguments.lazy_pages => {
            runtime.refuse("--lazy-pages needs a container in standby; make one, or leave the option out")
        }
        None => arguments.restore_new(runtime),
    }
}

impl Arguments {
    fn path(&self) -> PathBuf {
        absolute(&self.image_path)
    }

    fn restore_standing(&self, context: &Context, runtime: &Runtime, container: &Container) -> ExitCode {
        let mut request = Request::new(self.path());
        request.tcp = self.tcp_established.then_some(Tcp::Keep);
        request.work_path.clone_from(&self.work_path);
        request.lazy_pages = self.lazy_pages;
        if self.stored.is_given() {
            return self.stored.run(context, container, &request);
        }
        let result = fastmig_hooks::restore(container, &request);
        commands::conclude(context, runtime, result, commands::restore::print)
    }

    fn restore_new(&self, runtime: &Runtime) -> ExitCode {
        let start = Some(StartMode::Restore(self.path()));
        runtime.conclude(bring_up(runtime, &self.making, &self.running, &self.id, start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containerds_shim_and_conmon_send_is_understood() {
        let words =
            "restore --image-path /i --work-path /w --bundle /b --pid-file /p --detach --no-subreaper \
                     --no-pivot --tcp-established --ext-unix-sk --shell-job --file-locks web";
        let arguments = Arguments::try_parse_from(words.split_whitespace()).unwrap();
        assert_eq!((arguments.id.as_str(), arguments.tcp_established), ("web", true));
    }
}
