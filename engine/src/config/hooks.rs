//! The operator's commands around an operation, as `[[hook]]` in the settings. The crate `fastmig-hooks` runs them.

use serde::{Deserialize, Serialize};

use super::sources::Sources;
use super::ConfigError;

/// The longest time that a hook may be given, in seconds.
const LONGEST: u64 = 60 * 60;

/// One command, and when it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// At which point of an operation.
    pub when: Stage,
    /// The program, absolute or looked up in the system's PATH, and its arguments. No shell sees them.
    pub command: Vec<String>,
    /// How long it may take, in seconds; then it is killed, and has failed.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// What its failure means.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// For which containers: names or ids, where `*` stands for any text and `?` for one character. None given: for all.
    #[serde(default)]
    pub containers: Vec<String>,
    /// For which operations. None given: for all.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

/// A point of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Where the application runs, before it is stopped.
    PreCheckpoint,
    /// There, once it is dumped: in a migration it stands still, after a checkpoint it runs on or is gone, as asked.
    PostCheckpoint,
    /// Where it is to run, before it is restored.
    PreRestore,
    /// There, once it runs.
    PostRestore,
    /// On either side, when the operation failed after the first of its hooks had begun there.
    Aborted,
}

impl Stage {
    /// Its name in the settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreCheckpoint => "pre-checkpoint",
            Self::PostCheckpoint => "post-checkpoint",
            Self::PreRestore => "pre-restore",
            Self::PostRestore => "post-restore",
            Self::Aborted => "aborted",
        }
    }
}

/// What a hook can be part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// `fastmig checkpoint`.
    Checkpoint,
    /// `fastmig restore`.
    Restore,
    /// `fastmig migrate`, on either side.
    Migrate,
}

/// What a hook's failure means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The operation fails, and is undone where it still can be.
    #[default]
    Abort,
    /// It is logged.
    Ignore,
}

fn default_timeout() -> u64 {
    30
}

/// Refuses what could never run.
pub(super) fn check(hooks: &[Hook], sources: &Sources) -> Result<(), ConfigError> {
    let refused = |number: usize, cause: &str, remedy: &str| {
        Err(sources.error("hook", format!("hook {} {cause}", number + 1), remedy.into()))
    };
    for (number, hook) in hooks.iter().enumerate() {
        if hook.command.first().is_none_or(String::is_empty) {
            return refused(
                number,
                "names no program",
                "give command = [\"/path/to/program\", \"argument\"]",
            );
        }
        if hook.command.iter().any(|word| word.contains('\0')) {
            return refused(number, "has a zero byte in its command", "leave it out");
        }
        if hook.timeout == 0 || hook.timeout > LONGEST {
            let cause = format!("has the timeout {}, which is no possible limit", hook.timeout);
            return refused(number, &cause, &format!("give a number of seconds from 1 to {LONGEST}"));
        }
        if hook.containers.iter().any(String::is_empty) {
            return refused(number, "is for a container without a name", "give a name, or leave it out");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;

    fn parse(text: &str) -> Result<Vec<Hook>, String> {
        Config::parse(text, Path::new("/c.toml")).map(|(config, _)| config.hooks).map_err(|e| e.to_string())
    }

    #[test]
    fn a_hook_needs_a_time_and_a_command_only() {
        let hooks = parse("[[hook]]\nwhen = \"pre-checkpoint\"\ncommand = [\"true\"]\n").unwrap();
        assert_eq!((hooks[0].when, hooks[0].timeout), (Stage::PreCheckpoint, 30));
        assert_eq!(hooks[0].on_failure, OnFailure::Abort);
        assert!(hooks[0].containers.is_empty() && hooks[0].operations.is_empty());
    }

    #[test]
    fn what_could_never_run_is_refused_with_its_cause() {
        let hook = |rest: &str| format!("[[hook]]\nwhen = \"aborted\"\n{rest}");
        for (text, cause) in [
            (hook("command = []"), "hook 1 names no program"),
            (hook("command = [\"\"]"), "hook 1 names no program"),
            (hook("command = [\"a\"]\ntimeout = 0"), "from 1 to 3600"),
            (hook("command = [\"a\"]\ncontainers = [\"\"]"), "without a name"),
            (hook("command = [\"a\"]\nwhere = 1"), "where"),
            ("[[hook]]\nwhen = \"later\"\ncommand = [\"a\"]".into(), "later"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with("/c.toml, line ") && error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn the_stages_have_the_names_of_the_settings() {
        for stage in [
            Stage::PreCheckpoint,
            Stage::PostCheckpoint,
            Stage::PreRestore,
            Stage::PostRestore,
            Stage::Aborted,
        ] {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.name());
        }
    }
}
