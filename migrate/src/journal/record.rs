//! What is known of one migration on one host.

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

use crate::id::MigrationId;
use crate::options::Wanted;
use crate::report::Report;
use crate::state::State;
use crate::wire::Token;

/// A host's part in a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The application leaves.
    Source,
    /// It arrives.
    Destination,
}

impl Role {
    /// Its name, as in file names and hooks' facts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What is known of one migration on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: MigrationId,
    /// This host's part.
    pub role: Role,
    /// The other host.
    pub peer: String,
    /// The container, by the name that it was asked for.
    pub container: String,
    /// What was asked of the destination.
    pub wanted: Wanted,
    /// What the daemon needs to find this host's container again.
    pub facts: Value,
    /// What was decided.
    pub state: State,
    /// Why it was given up.
    pub reason: Option<String>,
    /// A source's that owes memory: what it takes to go on serving it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
    /// When it began, RFC 3339.
    pub begun: String,
    /// When something was last known of it.
    pub changed: String,
    /// The other host knows how it ended, so that this record is needed no more.
    pub settled: bool,
    /// What became of it.
    pub report: Option<Report>,
}

/// How a source serves what it owes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The secret by which its data connections are known.
    pub(crate) token: Token,
    /// How many of those there are.
    pub(crate) streams: u32,
    /// The number by which the image of what is owed is asked for.
    pub(crate) image: u32,
}

impl Record {
    pub(crate) fn new(id: MigrationId, role: Role, peer: &str, wanted: Wanted, facts: Value) -> Self {
        let now = now();
        Self {
            id,
            role,
            peer: peer.to_owned(),
            container: wanted.container.clone(),
            wanted,
            facts,
            state: State::Preparing,
            reason: None,
            serving: None,
            begun: now.clone(),
            changed: now,
            settled: false,
            report: None,
        }
    }

    /// A destination's, of a migration that never reached it and must not any more.
    pub(crate) fn refused(id: MigrationId, peer: &str) -> Self {
        let mut record = Self::new(id, Role::Destination, peer, Wanted::default(), Value::Null);
        record.state = State::Abandoned;
        record.reason = Some("the source asked for its decision before it had arrived".to_owned());
        record
    }

    /// What hooks are told of it.
    pub(crate) fn told_to_hooks(&self, reason: Option<&str>) -> Value {
        let mut told = json!({
            "migration": self.id,
            "role": self.role,
            "peer": self.peer,
            "container": self.container,
            "wanted": self.wanted,
            "facts": self.facts,
        });
        if let Some(reason) = reason {
            told["reason"] = reason.into();
        }
        told
    }

    pub(super) fn apply(&mut self, change: Change) {
        self.changed = change.at;
        if let Some(state) = change.state {
            self.state = state;
        }
        if change.reason.is_some() {
            self.reason = change.reason;
        }
        if change.serving.is_some() {
            self.serving = change.serving;
        }
        if let Some(facts) = change.facts {
            self.facts = facts;
        }
        if let Some(settled) = change.settled {
            self.settled = settled;
        }
        if change.report.is_some() {
            self.report = change.report;
        }
    }

    /// A destination's commit must be known until its source has heard of it.
    pub(crate) fn may_be_forgotten(&self) -> bool {
        self.state.is_final() && (self.settled || !matches!(self.state, State::Released | State::Done))
    }
}

/// What became known of it later; a line of its file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) serving: Option<Serving>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) facts: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) settled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) report: Option<Report>,
}

impl Change {
    pub(super) fn now() -> Self {
        Self { at: now(), state: None, reason: None, serving: None, facts: None, settled: None, report: None }
    }
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    now.format(&Rfc3339).unwrap_or_default()
}
