//! Programs that lie beside us: what they bring along is large, and we are started with every container.
//!
//! `fastmig-store` speaks to registries and object stores, `fastmig-report` draws.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The longest page that is taken from one.
const MOST: u64 = 256 << 20;

/// Such a program.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// Moves checkpoints.
    pub(super) fn store() -> Result<Self, String> {
        Self::beside_us("fastmig-store")
    }

    /// Makes a page of migrations.
    pub(super) fn report() -> Result<Self, String> {
        Self::beside_us("fastmig-report")
    }

    fn beside_us(name: &str) -> Result<Self, String> {
        let us = std::env::current_exe().map_err(|e| format!("could not find {name}: {e}"))?;
        let path = us.with_file_name(name);
        if path.is_file() {
            return Ok(Self { path });
        }
        Err(format!("{} is not there: install FastMig anew", path.display()))
    }

    /// Gives it something to read, and answers what it writes.
    pub(super) fn filter(&self, input: Vec<u8>, arguments: &[String]) -> Result<Vec<u8>, String> {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", self.path.display());
        let mut child = Command::new(&self.path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&e))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // It reads all before it writes, but need not.
        let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let mut output = Vec::new();
        let read = stdout.map(|stdout| stdout.take(MOST).read_to_end(&mut output)).transpose();
        let status = child.wait().map_err(|e| failed(&e))?;
        // Its own words are on our stderr already.
        drop(writer.join());
        if !status.success() {
            return Err(format!("{} ended with {status}", self.path.display()));
        }
        read.map_err(|e| failed(&e))?;
        Ok(output)
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
