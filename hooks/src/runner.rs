//! The hooks of one stage: which ones, in which order, and what a failure means.

use std::time::{Duration, Instant};

use fastmig_engine::config::hooks::{Hook, OnFailure, Operation, Stage};
use fastmig_engine::Config;

use crate::facts::{ContainerFacts, Facts};
use crate::patterns::matches;
use crate::process::{self, ProcessError};

/// A hook that failed, where that is not to be ignored.
#[derive(Debug, thiserror::Error)]
#[error(
    "the {} hook {program:?} failed for container {container:?}: mend it, or let its failure be ignored \
     (on_failure = \"ignore\")", stage.name()
)]
pub struct HookError {
    /// When it ran.
    pub stage: Stage,
    /// Its program.
    pub program: String,
    /// The container.
    pub container: String,
    /// Why.
    pub source: ProcessError,
}

/// The hooks of this host.
#[derive(Debug, Clone)]
pub struct Runner {
    hooks: Vec<Hook>,
    host: String,
}

impl Runner {
    /// Those of the settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        Self { hooks: config.hooks.clone(), host: host.unwrap_or_default() }
    }

    /// The name of this host, as hooks are told it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether any hook is for this operation: if not, nothing need be found out for them.
    #[must_use]
    pub fn has_any_for(&self, operation: Operation) -> bool {
        self.hooks.iter().any(|hook| is_for_operation(hook, operation))
    }

    /// Runs those of a stage, one after the other. The first failure that is not to be ignored ends it; those of
    /// [`Stage::Aborted`] are all run, for each undoes something of its own.
    ///
    /// # Errors
    /// The first failure that is not to be ignored.
    pub fn run(&self, facts: &Facts) -> Result<(), HookError> {
        let mut first = Ok(());
        for hook in self.hooks.iter().filter(|hook| is_for(hook, facts)) {
            let result = run_one(hook, facts);
            if first.is_ok() {
                first = result;
            }
            if first.is_err() && facts.stage != Stage::Aborted {
                break;
            }
        }
        first
    }
}

fn is_for(hook: &Hook, facts: &Facts) -> bool {
    hook.when == facts.stage
        && is_for_operation(hook, facts.operation)
        && is_for_container(hook, &facts.container)
}

fn is_for_operation(hook: &Hook, operation: Operation) -> bool {
    hook.operations.is_empty() || hook.operations.contains(&operation)
}

fn is_for_container(hook: &Hook, container: &ContainerFacts) -> bool {
    let means = |pattern: &String| container.words().any(|word| matches(pattern, word));
    hook.containers.is_empty() || hook.containers.iter().any(means)
}

fn run_one(hook: &Hook, facts: &Facts) -> Result<(), HookError> {
    let program = hook.command.first().cloned().unwrap_or_default();
    let container = facts.container.id.clone();
    let stage = facts.stage.name();
    let begun = Instant::now();
    let input = serde_json::to_vec(facts).unwrap_or_default();
    let outcome = process::run(&hook.command, &input, Duration::from_secs(hook.timeout));
    let ms = begun.elapsed().as_millis();
    match outcome {
        Ok(said) => tracing::info!(stage, program, container, ms, said, "hook done"),
        Err(source) if hook.on_failure == OnFailure::Ignore => {
            tracing::warn!(stage, program, container, ms, error = %source, "hook failed, which is ignored");
        }
        Err(source) => return Err(HookError { stage: facts.stage, program, container, source }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::facts::{Direction, VERSION};

    fn facts(stage: Stage, operation: Operation) -> Facts {
        let container =
            ContainerFacts { id: "0123".into(), names: vec!["web-1".into()], ..ContainerFacts::default() };
        Facts {
            version: VERSION,
            stage,
            operation,
            direction: Direction::Leaving,
            after: None,
            migration: Some("m1".into()),
            host: "a".into(),
            peer: Some("b".into()),
            reason: None,
            container,
        }
    }

    struct Bench {
        runner: Runner,
        dir: tempfile::TempDir,
    }

    impl Bench {
        /// Hooks that each add a word to a file; `rest` are their further settings and exit codes.
        fn of(hooks: &[(&str, &str, &str, u32)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut text = String::new();
            for (when, word, rest, code) in hooks {
                let script = format!("echo {word} >>{}; exit {code}", dir.path().join("log").display());
                text +=
                    &format!("[[hook]]\nwhen = {when:?}\ncommand = [\"sh\", \"-c\", {script:?}]\n{rest}\n");
            }
            let (config, _) = Config::parse(&text, Path::new("/c")).unwrap();
            Self { runner: Runner::new(&config), dir }
        }

        fn log(&self) -> PathBuf {
            self.dir.path().join("log")
        }

        fn ran(&self) -> Vec<String> {
            std::fs::read_to_string(self.log()).unwrap_or_default().lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn those_of_the_stage_the_operation_and_the_container_run_in_order() {
        let bench = Bench::of(&[
            ("pre-checkpoint", "all", "", 0),
            ("post-checkpoint", "later", "", 0),
            ("pre-checkpoint", "web", "containers = [\"db\", \"web*\"]", 0),
            ("pre-checkpoint", "id", "containers = [\"01?3\"]", 0),
            ("pre-checkpoint", "db", "containers = [\"db\"]", 0),
            ("pre-checkpoint", "plain", "operations = [\"checkpoint\", \"restore\"]", 0),
            ("pre-checkpoint", "move", "operations = [\"migrate\"]", 0),
        ]);
        bench.runner.run(&facts(Stage::PreCheckpoint, Operation::Migrate)).unwrap();
        assert_eq!(bench.ran(), ["all", "web", "id", "move"]);
    }

    #[test]
    fn the_first_failure_ends_the_stage_unless_it_is_ignored() {
        let bench = Bench::of(&[
            ("pre-restore", "one", "on_failure = \"ignore\"", 1),
            ("pre-restore", "two", "", 2),
            ("pre-restore", "three", "", 0),
        ]);
        let error = bench.runner.run(&facts(Stage::PreRestore, Operation::Restore)).unwrap_err();
        assert_eq!(bench.ran(), ["one", "two"]);
        assert!(
            error.to_string().starts_with("the pre-restore hook \"sh\" failed for container \"0123\""),
            "{error}"
        );
        assert_eq!(error.source.to_string(), "exit status: 2; it said nothing");
    }

    #[test]
    fn everything_is_undone_whatever_fails() {
        let bench = Bench::of(&[("aborted", "one", "", 1), ("aborted", "two", "", 0)]);
        assert!(bench.runner.run(&facts(Stage::Aborted, Operation::Migrate)).is_err());
        assert_eq!(bench.ran(), ["one", "two"]);
    }

    #[test]
    fn what_hooks_are_told_can_be_read_again() {
        let told = facts(Stage::Aborted, Operation::Migrate);
        let text = serde_json::to_string(&told).unwrap();
        assert!(
            text.contains("\"stage\":\"aborted\",\"operation\":\"migrate\",\"direction\":\"leaving\""),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), told);
    }

    #[test]
    fn without_a_hook_nothing_need_be_found_out() {
        let bench = Bench::of(&[("aborted", "x", "operations = [\"migrate\"]", 0)]);
        assert!(!bench.runner.has_any_for(Operation::Checkpoint));
        assert!(bench.runner.has_any_for(Operation::Migrate));
    }
}
