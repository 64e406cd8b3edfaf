//! The test programs, static, and the tests in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::framework::dist::{cargo, repository, target_dir};
use crate::framework::Cmd;

/// The crate that tracks memory.
const MEMORY: &[&str] = &["-p", "fastmig-memory"];

/// CRIU under our view of memory, and those of its cases for which a machine is large enough.
const VIEW: &[&str] = &["-p", "fastmig-criu", "--test", "view"];
const VIEW_CASES: [&str; 3] = [
    "a_process_finds_its_memory_in_huge_pages",
    "children_share_what_they_shared",
    "shared_memory_is_found_filled",
];

/// In the target directory, for its flags would rebuild what the others share with it.
const DIRECTORY: &str = "vm";

const TARGET: &str = "x86_64-unknown-linux-gnu";
const LIMIT: Duration = Duration::from_secs(600);

/// One test program.
#[derive(Debug)]
pub(super) struct Program {
    /// `unit` for the tests beside the code, else the name of the file.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The names of its tests, but for those that only people run.
    pub(super) tests: Vec<String>,
}

/// Builds them all, or in brief those that track memory.
pub(super) fn build(brief: bool) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for (name, path) in executables(MEMORY)? {
        programs.push(Program { tests: tests(&path)?, name, path });
    }
    if brief {
        return Ok(programs);
    }
    let cases = VIEW_CASES.map(str::to_owned);
    let view = executables(VIEW)?.into_iter();
    programs.extend(view.map(|(name, path)| Program { tests: cases.to_vec(), name, path }));
    Ok(programs)
}

fn executables(of: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let root = repository();
    let root = root.to_str().context("a path that is not UTF-8")?;
    let directory = target_dir().join(DIRECTORY);
    let directory = directory.to_str().context("a path that is not UTF-8")?;
    let cargo = cargo();
    let begin = [cargo.as_str(), "test", "--no-run", "--message-format=json"];
    let target = ["--target", TARGET, "--target-dir", directory];
    let argv = [begin.as_slice(), &target, of].concat();
    // Debug information would only be copied into the machine's memory.
    let command = Cmd::new(argv)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_TEST_DEBUG", "0")
        .env("CARGO_PROFILE_TEST_OPT_LEVEL", "1");
    let messages = command.dir(root).timeout(LIMIT).ok()?;
    Ok(messages.lines().filter_map(executable).collect())
}

/// Where they put files, as they were told when they were built.
pub(super) fn scratch() -> PathBuf {
    target_dir().join(DIRECTORY).join(TARGET).join("tmp")
}

/// Name and path, out of one of cargo's messages.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    let target = &message["target"];
    let is_library = target["kind"][0] == "lib";
    let name = if is_library { "unit" } else { target["name"].as_str()? };
    Some((name.to_owned(), path.into()))
}

/// Asks the program itself, which runs here as well.
fn tests(program: &Path) -> Result<Vec<String>> {
    let program = program.to_str().context("a path that is not UTF-8")?;
    let list = |more: &[&str]| -> Result<Vec<String>> {
        let text = Cmd::new([&[program, "--list", "--format", "terse"], more].concat()).ok()?;
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let ignored = list(&["--ignored"])?;
    let mut tests = list(&[])?;
    tests.retain(|test| !ignored.contains(test));
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_what_cargo_says() {
        let library =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"executable":"/a/x-1"}"#;
        let test = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"live"},"executable":"/a/live-1"}"#;
        let other =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"y"},"executable":null}"#;
        assert_eq!(executable(library), Some(("unit".to_owned(), "/a/x-1".into())));
        assert_eq!(executable(test), Some(("live".to_owned(), "/a/live-1".into())));
        assert_eq!(executable(other), None);
        assert_eq!(executable("   Compiling"), None);
    }
}
