//! Migrations from here and to here.

use std::sync::Arc;

use fastmig_api::container::Migrating;
use fastmig_api::request::MigrateRequest;
use fastmig_api::{Code, ErrorInfo, MigrationReport};
use fastmig_engine::Container;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::operations::Job;

/// All that this host takes part in.
#[derive(Debug, Default)]
pub struct Migrations {}

impl Migrations {
    /// Those that are known, the latest last.
    #[must_use]
    pub fn history(&self) -> Vec<MigrationReport> {
        Vec::new()
    }

    /// The one that a container takes part in.
    #[must_use]
    pub fn of(&self, _container: &str) -> Option<Migrating> {
        None
    }

    /// Moves an application away.
    ///
    /// # Errors
    /// When it stays.
    pub fn depart(
        &self,
        _daemon: &Arc<Daemon>,
        _container: &Container,
        _request: &MigrateRequest,
        _job: &Job,
    ) -> Result<Value, ErrorInfo> {
        Err(ErrorInfo::new(Code::Refused, "migrations are not built yet"))
    }
}
