//! The log of operations: what was done to containers of this host, by whichever program, under one id from its begin to its end.
//!
//! `operations.jsonl` in the log directory has a line of JSON for each step: `began`, what the init was asked (`init`), `decided`, and
//! `done` or `failed`. An operation of the daemon's has the id that the daemon answers with, what a keeper does that of its decision,
//! and what a shim or a command line does one of its own; a migration has its id on both hosts besides.
//!
//! The same id is in the span of every line on standard error.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::clock::{milliseconds, now};
use crate::json_lines::append;
use crate::state::Key;
use crate::{Config, Error};

/// The log starts anew at this length; the one before stays.
const MAX_BYTES: u64 = 8 << 20;

thread_local! {
    /// What this thread is at.
    static CURRENT: RefCell<Option<Traced>> = const { RefCell::new(None) };
}

/// One operation, as its lines tell of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traced {
    id: String,
    migration: Option<String>,
    /// Where it is told, once a container is known.
    told: Option<(PathBuf, Key)>,
}

/// While this lives, what the thread does is of one operation; then of the one before again.
#[derive(Debug)]
pub struct Scope(Option<Traced>);

impl Drop for Scope {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with_borrow_mut(|current| *current = before);
    }
}

/// What this thread does from here on is of operation `id`.
#[must_use]
pub fn scope(id: &str) -> Scope {
    enter(Traced { id: id.to_owned(), ..Traced::default() })
}

fn enter(traced: Traced) -> Scope {
    Scope(CURRENT.with_borrow_mut(|current| current.replace(traced)))
}

/// An id of our own.
#[must_use]
pub fn new_id() -> String {
    let mut bytes = [0; 8];
    // Without random bytes the time tells most operations apart.
    if getrandom::fill(&mut bytes).is_err() {
        bytes =
            u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap_or(0).to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<&'a str>,
    program: String,
    pid: u32,
    namespace: &'a str,
    container: &'a str,
    step: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Does `work` on a container as an operation: that of the thread's scope, or one of its own.
pub(crate) fn operation<T>(
    config: &Config,
    key: &Key,
    action: &'static str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let begun = Instant::now();
    let traced = Traced::on(config, key, None);
    let _scope = traced.enter();
    let span = tracing::info_span!("operation", id = traced.id, action, container = key.id());
    let _entered = span.enter();
    traced.tell("began", action, None, None);
    let result = work();
    match &result {
        Ok(_) => traced.tell("done", action, Some(milliseconds(begun)), None),
        Err(e) => traced.tell("failed", action, Some(milliseconds(begun)), Some(&e.report())),
    }
    result
}

/// The id of what this thread is at.
pub(crate) fn current() -> Option<String> {
    CURRENT.with_borrow(|current| current.as_ref().map(|current| current.id.clone()))
}

/// A step of what this thread is at, if that is an operation on a container.
pub(crate) fn tell(step: &str, what: &str) {
    tell_because(step, what, None);
}

/// The same, and why.
pub(crate) fn tell_because(step: &str, what: &str, reason: Option<&str>) {
    if let Some(traced) = CURRENT.with_borrow(Clone::clone) {
        traced.tell(step, what, None, reason);
    }
}

impl Traced {
    /// An operation on container `key`: that of this thread's scope, that of a migration, or one of its own.
    pub(crate) fn on(config: &Config, key: &Key, migration: Option<&str>) -> Self {
        let id = current().or_else(|| migration.map(str::to_owned)).unwrap_or_else(new_id);
        let told = Some((config.log_dir.join("operations.jsonl"), key.clone()));
        Self { id, migration: migration.map(str::to_owned), told }
    }

    /// What this thread does from here on is of it.
    pub(crate) fn enter(&self) -> Scope {
        enter(self.clone())
    }

    /// A step of it.
    pub(crate) fn tell(&self, step: &str, what: &str, ms: Option<u64>, reason: Option<&str>) {
        let Some((path, key)) = &self.told else { return };
        let line = Line {
            at: now(),
            id: &self.id,
            migration: self.migration.as_deref(),
            program: program(),
            pid: std::process::id(),
            namespace: key.namespace(),
            container: key.id(),
            step,
            what,
            ms,
            reason,
        };
        tracing::info!(id = self.id, step, what, ms, reason, "operation");
        if let Err(e) = append(path, &line, MAX_BYTES) {
            tracing::debug!(?path, error = %e, "a step is not logged");
        }
    }
}

fn program() -> String {
    let name = std::env::args_os().next().unwrap_or_default();
    let keeper = std::env::args_os().nth(1).is_some_and(|word| word == crate::keeper::WORD);
    if keeper {
        return "keeper".into();
    }
    Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_have_the_id_of_their_scope() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { log_dir: directory.path().join("log"), ..Config::default() };
        let key = Key::new("n", "c").unwrap();
        let outer = scope("op-1");
        operation(&config, &key, "checkpoint", || {
            tell("init", "Stop");
            Ok(())
        })
        .unwrap();
        drop(outer);
        let failed: Result<(), Error> =
            operation(&config, &key, "restore", || Err(Error::NotFound { id: "c".into() }));
        assert!(failed.is_err());
        tell("init", "nobody's");
        let text = std::fs::read_to_string(directory.path().join("log/operations.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let steps: Vec<&str> = lines.iter().map(|line| line["step"].as_str().unwrap()).collect();
        assert_eq!(steps, ["began", "init", "done", "began", "failed"]);
        assert!(lines[..3].iter().all(|line| line["id"] == "op-1"));
        assert!(lines[3]["id"] == lines[4]["id"] && lines[3]["id"] != "op-1");
        assert!(lines[4]["reason"].as_str().unwrap().contains('c'));
    }
}
