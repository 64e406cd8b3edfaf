//! What is noted of a container, so that a daemon that is started anew finds it again; and what both daemons agree on.

use fastmig_engine::{Container, Key};
use fastmig_migrate::ends::EndError;
use fastmig_recreate::Created;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the journal keeps of this host's container, and hooks are called by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Located {
    pub(super) namespace: String,
    pub(super) id: String,
    /// Whether the configured hooks run.
    pub(super) hooks: bool,
    /// The operation that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<String>,
    /// What was made for it, and goes when nothing comes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<Created>,
}

/// What the source tells the destination's daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agreed {
    /// Whether the destination's hooks run.
    pub(super) hooks: bool,
    /// What the container is called at the source.
    pub(super) from: String,
    /// Where the source's daemon listens, as far as it knows.
    #[serde(default)]
    pub(super) address: Option<String>,
}

impl Located {
    pub(super) fn at(container: &Container, hooks: bool) -> Self {
        let key = container.key();
        let (namespace, id) = (key.namespace().to_owned(), key.id().to_owned());
        Self { namespace, id, hooks, operation: None, created: None }
    }

    /// Nothing when no container had been found yet.
    pub(super) fn read(facts: &Value) -> Option<Self> {
        Self::deserialize(facts).ok()
    }

    pub(super) fn key(&self) -> Result<Key, EndError> {
        Ok(Key::new(&self.namespace, &self.id)?)
    }

    pub(super) fn to_value(&self) -> Result<Value, EndError> {
        Ok(serde_json::to_value(self)?)
    }
}
