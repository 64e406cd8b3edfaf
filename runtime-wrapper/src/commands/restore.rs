//! `fastmig restore CONTAINER --image-path DIR`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fastmig_engine::checkpoint::Tcp;
use fastmig_engine::restore::Request;
use fastmig_engine::Error;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The id of a container in standby, or what it begins with
    container: String,
    /// The checkpoint
    #[arg(long, value_name = "DIR")]
    image_path: PathBuf,
    /// Keep established TCP connections; the checkpoint must have kept them too
    #[arg(long)]
    tcp_established: bool,
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        let path = std::path::absolute(&self.image_path).unwrap_or_else(|_| self.image_path.clone());
        let mut request = Request::new(path);
        request.tcp = self.tcp_established.then_some(Tcp::Keep);
        let report = context.container(&self.container)?.restore(&request)?;
        context.output.value(&report, |report| {
            format!("restored as pid {} in {} ms", report.application_pid, report.total_ms)
        });
        Ok(ExitCode::SUCCESS)
    }
}
