//! What was decided: for each container, beside its state; for all of this host, one line of JSON each, which the daemon
//! tells of.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fastmig_policy::{Decision, Facts};
use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::files::replace;
use crate::json_lines::append;
use crate::state::{Directory, Key};
use crate::{trace, Config, Container};

const FILE: &str = "policy.json";

/// So many failures are remembered: more than any rule asks for.
const MAX_FAILURES: usize = 1000;

/// The host's file starts anew at this length; the one before stays.
const MAX_BYTES: u64 = 4 << 20;

/// A decision, with what led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339.
    pub at: String,
    /// The container's namespace.
    pub namespace: String,
    /// Its id.
    pub container: String,
    /// `scratch`, `restore`, `standby` or `exit`.
    pub action: String,
    /// The checkpoint of a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The end, and the rule that it fits; and what came between.
    pub reason: String,
    /// The wait before it, in milliseconds.
    pub delay_ms: u64,
    /// As a shell reports the end; none when a restore failed.
    pub code: Option<u8>,
    /// Whether memory ran out.
    pub oom: bool,
    /// Restarts in place so far, with this one.
    pub restarts: u64,
    /// The id of the decision, and of what was done because of it, in the log of operations.
    #[serde(default)]
    pub operation: String,
}

/// What is known of one container's decisions, for `status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How often its application was started again or restored by the policy.
    pub restarts: u64,
    /// The last decision.
    pub last: Option<Entry>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Content {
    #[serde(flatten)]
    summary: Summary,
    failures: Vec<SystemTime>,
    oom_kills: u64,
}

/// The decisions about one container; only its keeper writes them.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    host: PathBuf,
    key: Key,
    content: Content,
}

impl Journal {
    pub(super) fn open(container: &Container) -> Self {
        let path = container.directory.file(FILE);
        Self { content: read(&path), path, host: host_file(&container.config), key: container.key().clone() }
    }

    /// Counts this end, if it is a failure, and all within `window`.
    pub(super) fn count(&mut self, facts: &Facts, window: Duration) -> u32 {
        let failures = &mut self.content.failures;
        failures.retain(|time| time.elapsed().is_ok_and(|since| since < window));
        if facts.is_failure() {
            failures.push(SystemTime::now());
        }
        let excess = failures.len().saturating_sub(MAX_FAILURES);
        failures.drain(..excess);
        u32::try_from(failures.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.content.oom_kills
    }

    pub(super) fn note_oom_kills(&mut self, kills: u64) {
        self.content.oom_kills = kills;
        self.save();
    }

    /// Writes a decision down before it is done.
    pub(super) fn note(&mut self, facts: &Facts, decision: &Decision) {
        if decision.action.restarts() {
            self.content.summary.restarts += 1;
        }
        let checkpoint = match &decision.action {
            fastmig_policy::Action::Restore { checkpoint } => Some(checkpoint.to_string()),
            _ => None,
        };
        let entry = Entry {
            at: now(),
            namespace: self.key.namespace().into(),
            container: self.key.id().into(),
            action: decision.action.name().into(),
            checkpoint,
            reason: decision.reason.clone(),
            delay_ms: u64::try_from(decision.delay.as_millis()).unwrap_or(u64::MAX),
            code: facts.code,
            oom: facts.oom,
            restarts: self.content.summary.restarts,
            operation: trace::current().unwrap_or_default(),
        };
        trace::tell_because("decided", &entry.action, Some(&entry.reason));
        if let Err(e) = append(&self.host, &entry, MAX_BYTES) {
            tracing::warn!(error = %e, "a decision is not told");
        }
        self.content.summary.last = Some(entry);
        self.save();
    }

    /// Without it the next keeper counts from nothing; the application's fate does not depend on it.
    fn save(&self) {
        let text = serde_json::to_vec(&self.content).map_err(std::io::Error::from);
        if let Err(e) = text.and_then(|text| replace(&self.path, &text)) {
            tracing::warn!(path = ?self.path, error = %e, "the policy's journal is not written");
        }
    }
}

/// A damaged one is as good as none: nothing but counts is lost.
fn read(path: &Path) -> Content {
    std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What was decided about the container in `directory`.
pub(crate) fn summary(directory: &Directory) -> Summary {
    read(&directory.file(FILE)).summary
}

/// The decisions on this host, one line of JSON each; the file before it has `.1` at its end.
#[must_use]
pub fn host_file(config: &Config) -> PathBuf {
    config.state_root.join(".policy/decisions.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(directory: &Path) -> Journal {
        Journal {
            path: directory.join(FILE),
            host: directory.join(".policy/decisions.jsonl"),
            key: Key::new("n", "c").unwrap(),
            content: read(&directory.join(FILE)),
        }
    }

    #[test]
    fn failures_count_within_their_window_and_across_keepers() {
        let directory = tempfile::tempdir().unwrap();
        let rules = fastmig_policy::Rules::named("default").unwrap();
        let window = Duration::from_secs(3600);
        for expected in 1..=3 {
            let mut journal = journal(directory.path());
            let facts = Facts::exited(1);
            assert_eq!(journal.count(&facts, window), expected);
            journal.note(&facts, &rules.decide(&facts));
        }
        let mut journal = journal(directory.path());
        assert_eq!(journal.count(&Facts::exited(0), window), 3);
        assert_eq!(journal.content.summary.restarts, 3);
        assert_eq!(journal.count(&Facts::exited(1), Duration::ZERO), 1);
        let lines = std::fs::read_to_string(journal.host).unwrap();
        let entries: Vec<Entry> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries.iter().map(|entry| entry.restarts).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_damaged_journal_is_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(journal(directory.path()).content.summary.restarts, 0);
    }
}
