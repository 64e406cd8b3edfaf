//! `fastmig-store`, which moves checkpoints: a program of its own, for what speaks to registries and object stores is
//! large, and we are started with every container.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

const NAME: &str = "fastmig-store";

/// The program.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// The one beside us.
    pub(super) fn ours() -> Result<Self, String> {
        let us = std::env::current_exe().map_err(|e| format!("could not find {NAME}: {e}"))?;
        let path = us.with_file_name(NAME);
        if path.is_file() {
            return Ok(Self { path });
        }
        Err(format!("{} is not there, which moves checkpoints: install FastMig anew", path.display()))
    }

    /// Lets it do something, and answers what it says of it. Its own waits have limits.
    pub(super) fn call(&self, command: &str, options: &[OsString]) -> Result<Value, String> {
        let output = Command::new(&self.path)
            .args(["--json", command])
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("could not start {}: {e}", self.path.display()))?;
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match answer["error"].as_str() {
            Some(words) => Err(words.into()),
            None if output.status.success() && answer.is_object() => Ok(answer),
            None => Err(format!("{} ended with {} and said nothing", self.path.display(), output.status)),
        }
    }

    /// Becomes it. Returns only when that fails, with the reason.
    pub(super) fn become_it(&self, arguments: &[OsString], json: bool) -> String {
        let error = Command::new(&self.path).args(json.then_some("--json")).args(arguments).exec();
        format!("could not start {}: {error}", self.path.display())
    }
}
