//! What has failed, kept for the end of a run: the failures of many suites side by side are hard to find among their lines.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Where a process of a lane tells its own, for the one that began the run.
pub const FILE: &str = "FASTMIG_FAILURES";

/// Lines of each failure that are told again.
const LINES: usize = 12;

static NOTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A case has failed for good.
pub fn note(suite: &str, case: &str, error: &str) {
    let lines: Vec<&str> = error.lines().take(LINES).collect();
    let text = format!("{suite}: {case}\n    {}\n", lines.join("\n    "));
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).push(text);
}

/// Those of this process.
pub fn noted() -> String {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).concat()
}

/// Hands them to the process that began the run, if that is another one.
///
/// # Errors
/// When its file cannot be written.
pub fn hand_over() -> Result<()> {
    let Some(path) = env::var_os(FILE) else { return Ok(()) };
    let path = Path::new(&path);
    let file = OpenOptions::new().append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(noted().as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_error_is_told_again() {
        note("self", "long", &"line\n".repeat(100));
        let told = noted();
        assert!(told.starts_with("self: long\n    line\n"), "{told}");
        assert_eq!(told.lines().count(), 1 + LINES);
    }
}
