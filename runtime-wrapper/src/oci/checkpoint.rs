//! `checkpoint`: of a container below `--root`, as a shim or conmon asks; or of any, by id or name, as an operator does.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fastmig_engine::checkpoint::{After, Request, Strategy, Tcp};
use fastmig_engine::start_options::Volumes;
use fastmig_engine::Error;

use super::ignored::Ignored;
use super::{absolute, Runtime};
use crate::commands::{self, Context};

/// The options have runc's names and meanings.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// The container's id or name, or what its id begins with
    id: String,
    /// Where the checkpoint is to stand; nothing or an empty directory may be there
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Where CRIU's log is put too
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Let the application run on
    #[arg(long, conflicts_with = "standby")]
    leave_running: bool,
    /// End the application but keep the container up, ready for a restore; otherwise both end
    #[arg(long)]
    standby: bool,
    /// Keep established TCP connections; the address must move along
    #[arg(long)]
    tcp_established: bool,
    /// Take along what was written in the container's root file system
    #[arg(long)]
    files: bool,
    /// And these of its volumes: all, none, or paths in the container with commas between them; otherwise those that the
    /// annotation fastmig.dev/volumes names
    #[arg(long, value_name = "LIST", requires = "files")]
    volumes: Option<Volumes>,
    /// How memory is written: auto (in rounds while the application runs, where the host can; only what has changed since the
    /// checkpoint before), pre-copy (so or not at all), stop-copy (while it stands still, into files that criu alone can
    /// restore); auto unless a client asks
    #[arg(long, value_name = "HOW")]
    strategy: Option<Strategy>,
    /// Compare each page that was written in rounds with what the application had, which stands still meanwhile
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    stored: commands::store::Target,
    #[command(flatten)]
    ignored: Ignored,
    /// Connections half open are closed with the others
    #[arg(long, help_heading = "Taken for runc's sake, without effect")]
    tcp_skip_in_flight: bool,
    #[command(flatten)]
    refused: Refused,
}

/// What FastMig does not do.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of runc that are refused")]
struct Refused {
    /// Memory is written by the checkpoint alone
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Memory is written by the checkpoint alone
    #[arg(long)]
    pre_dump: bool,
    /// Memory is written by the checkpoint alone
    #[arg(long)]
    lazy_pages: bool,
    /// Memory is written by the checkpoint alone
    #[arg(long, value_name = "FD")]
    status_fd: Option<i32>,
    /// Memory is written by the checkpoint alone
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
}

impl Refused {
    fn first(&self) -> Option<&'static str> {
        let given = [
            ("--parent-path", self.parent_path.is_some()),
            ("--pre-dump", self.pre_dump),
            ("--lazy-pages", self.lazy_pages),
            ("--status-fd", self.status_fd.is_some()),
            ("--page-server", self.page_server.as_ref().is_some_and(|server| !server.is_empty())),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}

pub(crate) fn run(context: &Context, runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("checkpoint", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let container = match commands::find(context, runtime, &arguments.id) {
        Ok(Some(container)) => container,
        Ok(None) if runtime.is_called_by_client() || runtime.is_runcs(&arguments.id) => {
            return runtime.hand_over("checkpoint", raw);
        }
        Ok(None) => {
            return context.conclude(Err(Error::NotFound { id: arguments.id }));
        }
        Err(e) => return context.conclude(Err(e)),
    };
    // runc made it as it is, and checkpoints it so.
    if !container.is_warm() && runtime.is_called_by_client() && !arguments.standby {
        return runtime.hand_over("checkpoint", raw);
    }
    if let Some(option) = arguments.refused.first() {
        return runtime.refuse(&format!(
            "{option} is not possible for a container under FastMig: its memory is written by the checkpoint alone; \
             leave the option out"
        ));
    }
    let request = arguments.request(runtime.is_called_by_client());
    if arguments.stored.is_given() {
        return arguments.stored.run(context, &arguments.id, request);
    }
    let result = fastmig_hooks::checkpoint(&container, &request);
    // podman gives no --root here, but a place for CRIU's log, and shows what we say: runc says nothing.
    if arguments.work_path.is_some() {
        return runtime.conclude(result.map(|_| ExitCode::SUCCESS));
    }
    commands::conclude(context, runtime, result, commands::checkpoint::print)
}

impl Arguments {
    fn request(&self, by_client: bool) -> Request {
        let after = match (self.leave_running, self.standby) {
            (true, _) => After::Run,
            (_, true) => After::Standby,
            _ => After::Exit,
        };
        let path = absolute(&self.image_path);
        let mut request = Request::new(path, after);
        request.tcp = self.tcp_established.then_some(Tcp::Keep);
        request.files = self.files;
        request.volumes.clone_from(&self.volumes);
        // runc writes over what is there; podman relies on it.
        request.replaces = self.work_path.is_some();
        request.work_path.clone_from(&self.work_path);
        // A client's checkpoints are read by others: CRIU's own files, as runc writes them. podman is known by its work path.
        let for_others = by_client || self.work_path.is_some();
        let usual = if for_others { Strategy::StopCopy } else { Strategy::Auto };
        request.strategy = self.strategy.unwrap_or(usual);
        request.verify = self.verify;
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containerds_shim_and_conmon_send_is_understood() {
        let words =
            "checkpoint --image-path /i --work-path /w --leave-running --tcp-established --ext-unix-sk \
                     --shell-job --file-locks --empty-ns network --manage-cgroups-mode soft web";
        let arguments = Arguments::try_parse_from(words.split_whitespace()).unwrap();
        let request = arguments.request(false);
        assert_eq!((request.after, request.tcp), (After::Run, Some(Tcp::Keep)));
        assert_eq!(request.strategy, Strategy::StopCopy, "podman reads it");
        assert_eq!(arguments.refused.first(), None);
    }

    #[test]
    fn memory_comes_in_rounds_unless_a_client_asks() {
        let of = |words: &str, by_client| {
            Arguments::try_parse_from(words.split_whitespace()).unwrap().request(by_client).strategy
        };
        assert_eq!(of("checkpoint web", false), Strategy::Auto);
        assert_eq!(of("checkpoint web", true), Strategy::StopCopy);
        assert_eq!(of("checkpoint --strategy pre-copy web", true), Strategy::PreCopy);
        assert!(Arguments::try_parse_from(["checkpoint", "--strategy", "post-copy", "web"]).is_err());
    }

    #[test]
    fn what_belongs_to_a_store_needs_one() {
        let read = |words: &str| Arguments::try_parse_from(words.split_whitespace());
        for words in [
            "checkpoint web --to /b/",
            "checkpoint web --every 5m --keep 3",
            "checkpoint web --to store: --every 1h --encrypt",
        ] {
            assert!(read(words).unwrap().stored.is_given(), "{words}");
        }
        for words in [
            "checkpoint web --keep 3",
            "checkpoint web --encrypt",
            "checkpoint web --to /b --image-path /i",
            "checkpoint web --every 5m --standby",
            "checkpoint web --every 5m --keep 0",
        ] {
            assert!(read(words).is_err(), "{words}");
        }
        assert!(!read("checkpoint web").unwrap().stored.is_given());
    }

    #[test]
    fn a_memory_that_comes_by_another_way_is_refused() {
        let arguments = Arguments::try_parse_from(["checkpoint", "--pre-dump", "web"]).unwrap();
        assert_eq!(arguments.refused.first(), Some("--pre-dump"));
    }
}
