//! `fastmig checkpoint CONTAINER --image-path DIR`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fastmig_engine::checkpoint::{After, Request, Tcp};
use fastmig_engine::Error;

use super::Context;

/// The flags have runc's names and meanings.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The container's id, or what it begins with
    container: String,
    /// Where the checkpoint is to stand; nothing or an empty directory may be there
    #[arg(long, value_name = "DIR")]
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
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        let after = match (self.leave_running, self.standby) {
            (true, _) => After::Run,
            (_, true) => After::Standby,
            _ => After::Exit,
        };
        let path = std::path::absolute(&self.image_path).unwrap_or_else(|_| self.image_path.clone());
        let mut request = Request::new(path, after);
        request.tcp = self.tcp_established.then_some(Tcp::Keep);
        request.work_path.clone_from(&self.work_path);
        let report = context.container(&self.container)?.checkpoint(&request)?;
        context.output.value(&report, |report| {
            format!(
                "{} processes, {} bytes in {}, frozen for {} ms",
                report.processes,
                report.bytes,
                report.path.display(),
                report.frozen_ms
            )
        });
        Ok(ExitCode::SUCCESS)
    }
}
