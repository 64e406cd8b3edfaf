//! The operator's commands around a migration.

use std::sync::Arc;

use fastmig_engine::{Config, Container};
use fastmig_hooks::{MigrationHooks, Stage as Configured};
use fastmig_migrate::ends::EndError;
use fastmig_migrate::hooks::{Hooks, Stage};
use serde_json::Value;

use super::located::Located;

/// Those that the settings name.
#[derive(Debug)]
pub(super) struct Commands {
    config: Arc<Config>,
}

impl Commands {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }
}

impl Hooks for Commands {
    fn run(&self, stage: Stage, facts: &Value) -> Result<(), EndError> {
        // Before a container is found no hook has anything to be about.
        let Some(located) = Located::read(&facts["facts"]).filter(|located| located.hooks) else {
            return Ok(());
        };
        if self.config.hooks.is_empty() {
            return Ok(());
        }
        let container = Container::open(self.config.clone(), &located.key()?)?;
        let stage = match stage {
            Stage::PreCheckpoint => Configured::PreCheckpoint,
            Stage::PostCheckpoint => Configured::PostCheckpoint,
            Stage::PreRestore => Configured::PreRestore,
            Stage::PostRestore => Configured::PostRestore,
            Stage::Aborted => Configured::Aborted,
        };
        Ok(MigrationHooks::new(&container).run(stage, facts)?)
    }
}
