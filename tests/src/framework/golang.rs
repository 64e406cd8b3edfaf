//! Programs from Go modules, built where Go is present: the field's conformance tests are written in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::command::Cmd;
use super::suite::Outcome;

/// The download of a module and the build of large programs, on a slow machine.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a case that builds such programs; where Go does not answer it is skipped.
pub fn needed(case: impl FnOnce() -> Result<()>) -> Outcome {
    match missing() {
        Some(reason) => Outcome::Skipped(reason),
        None => case().into(),
    }
}

/// Why nothing can be built here; nothing when Go answers.
fn missing() -> Option<String> {
    let answer = Cmd::new(["go", "version"]).ok();
    answer
        .err()
        .map(|error| format!("the field's conformance tests are Go programs, and Go is not here: {error:#}"))
}

/// The directory of a module's sources, which Go downloads and verifies.
pub fn module(path: &str, version: &str) -> Result<PathBuf> {
    let module = format!("{path}@{version}");
    let answer = command(["mod", "download", "-json", &module])
        .ok()
        .with_context(|| format!("cannot download the Go module {module}"))?;
    let answer: Value = serde_json::from_str(&answer)?;
    let dir = answer["Dir"].as_str().with_context(|| format!("no directory of {module} in {answer}"))?;
    Ok(dir.into())
}

/// Runs `go` with these arguments in the directory of a module. What it builds is static: it runs on every host.
pub fn go<'a>(dir: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let dir = dir.to_str().context("a path that is not UTF-8")?;
    command(arguments).dir(dir).ok().map(drop)
}

fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Cmd {
    let argv = ["nice", "go"].into_iter().chain(arguments);
    Cmd::new(argv).env("CGO_ENABLED", "0").env("GOFLAGS", "-trimpath -buildvcs=false").timeout(LIMIT)
}
