//! What a hook is told, as JSON on its standard input. Fields may be added; none changes its meaning.

use fastmig_engine::checkpoint::After;
use fastmig_engine::config::hooks::{Operation, Stage};
use fastmig_engine::Container;
use serde::{Deserialize, Serialize};

use crate::netns;

/// The version of this document.
pub const VERSION: u32 = 1;

/// Everything that a hook is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// [`VERSION`].
    pub version: u32,
    /// The point that the operation has come to.
    pub stage: Stage,
    /// What is being done.
    pub operation: Operation,
    /// Whether the application leaves this host or comes to it.
    pub direction: Direction,
    /// What becomes of the application after a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// The migration's id, the same on both hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<String>,
    /// The name of this host.
    pub host: String,
    /// The name of the other host of a migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Why the operation was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The container of this host.
    pub container: ContainerFacts,
}

/// Which way an application goes, seen from one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It is taken out of the container.
    Leaving,
    /// It is put into the container.
    Arriving,
}

/// The container that an operation is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// The namespace: containerd's, or made from runc's `--root`.
    pub namespace: String,
    /// The id.
    pub id: String,
    /// What its client calls it.
    pub names: Vec<String>,
    /// Host pid of its PID 1.
    pub pid: i32,
    /// The addresses of its network namespace but those of the loopback device, as `ADDRESS/PREFIX`.
    #[serde(default)]
    pub addresses: Vec<String>,
}

impl ContainerFacts {
    /// What is so now. What cannot be found out is left out: a hook that undoes something must run in any case.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        let (key, pid) = (container.key(), container.pid());
        let names = container.status().map_or_else(
            |e| {
                tracing::warn!(container = key.id(), error = %e, "the names of the container are not known to hooks");
                Vec::new()
            },
            |status| status.names,
        );
        let addresses = netns::addresses(pid).unwrap_or_else(|e| {
            tracing::debug!(pid, error = %e, "the addresses of the container are not known to hooks");
            Vec::new()
        });
        Self { namespace: key.namespace().into(), id: key.id().into(), names, pid, addresses }
    }

    /// Every word that means this container.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).chain([self.id.as_str()])
    }
}
