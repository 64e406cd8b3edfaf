//! How commands answer: one line of text for people, one JSON document for programs.

use fastmig_engine::{Error, Kind};
use serde::Serialize;

/// The chosen form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints `value`, or what `text` makes of it.
    pub(crate) fn value<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) {
        if !self.json {
            println!("{}", text(value));
            return;
        }
        match serde_json::to_string(value) {
            Ok(line) => println!("{line}"),
            Err(e) => eprintln!("fastmig: the answer is not printable: {e}"),
        }
    }

    /// Prints a failure: on stderr for people; as `{"error": ..., "kind": ...}` on stdout for programs.
    pub(crate) fn failure(self, error: &Error) {
        self.tell(&error.report(), &format!("{:?}", error.kind()));
    }

    /// As [`Output::failure`], for one that is not the engine's.
    pub(crate) fn failure_text(self, text: &str) {
        self.tell(text, &format!("{:?}", Kind::FailedPrecondition));
    }

    fn tell(self, error: &str, kind: &str) {
        if self.json {
            println!("{}", serde_json::json!({ "error": error, "kind": kind }));
        } else {
            eprintln!("fastmig: {error}");
        }
    }
}
