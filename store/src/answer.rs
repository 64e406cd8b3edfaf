//! What is said: text for people, one JSON document for programs. In the forms of `fastmig`, whose answers they become.

use std::process::ExitCode;

use fastmig_store::StoreError;
use serde::Serialize;

/// The chosen form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) json: bool,
}

impl Answer {
    /// Says what came out, or why nothing did.
    pub(crate) fn conclude<T: Serialize>(
        self,
        outcome: Result<T, StoreError>,
        text: impl FnOnce(&T) -> String,
    ) -> ExitCode {
        match outcome {
            Ok(value) if self.json => self.document(&value),
            Ok(value) => {
                println!("{}", text(&value));
                ExitCode::SUCCESS
            }
            Err(e) => self.failure(&e.report(), kind(&e)),
        }
    }

    /// Says why nothing came out.
    pub(crate) fn failure(self, error: &str, kind: &str) -> ExitCode {
        if self.json {
            println!("{}", serde_json::json!({ "error": error, "kind": kind }));
        } else {
            eprintln!("fastmig: {error}");
        }
        ExitCode::FAILURE
    }

    fn document<T: Serialize>(self, value: &T) -> ExitCode {
        match serde_json::to_string(value) {
            Ok(line) => {
                println!("{line}");
                ExitCode::SUCCESS
            }
            Err(e) => self.failure(&format!("the answer is not printable: {e}"), "Internal"),
        }
    }
}

/// The engine's word for it.
fn kind(error: &StoreError) -> &'static str {
    use StoreError as E;
    match error {
        E::NotFound { .. } | E::NoneOf { .. } | E::NoPlace { .. } => "NotFound",
        E::Occupied { .. } => "AlreadyExists",
        E::Location { .. } | E::Name { .. } => "InvalidArgument",
        E::Unreachable { .. } | E::Interrupted => "Unavailable",
        E::Slow { .. } => "DeadlineExceeded",
        E::Failed { .. } | E::Io { .. } => "Internal",
        _ => "FailedPrecondition",
    }
}
