//! One live migration, by the operator's own command.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::container::Container;
use crate::framework::{Background, Cmd};

/// Far more than a migration takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// `fastmig migrate`, not run yet; its answer is one document.
pub fn command(source: &Container, destination: &Container, options: &[&str]) -> Cmd {
    let to = ["--to", destination.host.name(), "--into", destination.id()];
    let argv = [&["fastmig", "--json", "migrate", source.id()], &to[..], options].concat();
    source.host.cmd(argv).timeout(LIMIT)
}

/// Moves the application of `source` into `destination`, which waits; answers the report.
pub fn migrate(source: &Container, destination: &Container, options: &[&str]) -> Result<Value> {
    let first = destination.first_process()?;
    let output = command(source, destination, options).output()?;
    let said = format!("{}{}", output.out(), output.err());
    ensure!(output.status.success(), "the migration failed: {said}\n{}", logs(source, destination));
    source.require("standby")?;
    destination.require("running")?;
    ensure!(destination.first_process()? == first, "PID 1 of the destination is another process");
    let answer: Value = serde_json::from_str(&output.out()).with_context(|| format!("no answer: {said}"))?;
    Ok(answer["report"].clone())
}

/// Begins one, to be waited for.
pub fn begin(source: &Container, destination: &Container) -> Result<Background> {
    command(source, destination, &[]).spawn()
}

/// The ends of both daemons' logs.
pub fn logs(source: &Container, destination: &Container) -> String {
    let log = |container: &Container| {
        format!("fastmigd of host {}:\n{}", container.host.name(), container.host.fastmigd_log())
    };
    format!("{}\n{}", log(source), log(destination))
}
