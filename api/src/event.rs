//! What happens, as server-sent events of `GET /v1/events`: the SSE `event` is the name in `type`, the `data` one
//! [`Event`] as JSON, the `id` its sequence.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::Application;
use crate::migration::{Round, Side};
use crate::operation::Operation;
use crate::policy::Decision;
use crate::request::Strategy;

/// So often the daemon sends at least something: an event, or a comment (`:`) that only shows that it is there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Counts the daemon's events from 1; a gap means that this listener was too slow for some.
    pub sequence: u64,
    /// When, RFC 3339.
    pub at: String,
    /// The operation that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The operation's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The container that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum What {
    /// An operation began.
    OperationStarted {
        /// It.
        started: Box<Operation>,
    },
    /// It ended.
    OperationEnded {
        /// It, with what became of it.
        ended: Box<Operation>,
    },
    /// A phase began.
    PhaseStarted {
        /// Its name.
        phase: String,
        /// Where.
        side: Side,
        /// Whether the application is frozen during it.
        frozen: bool,
    },
    /// It ended.
    PhaseEnded {
        /// Its name.
        phase: String,
        /// Where.
        side: Side,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// How much has travelled.
    Progress {
        /// The phase under way.
        phase: String,
        /// Bytes as they are, so far: memory, images and files.
        done: u64,
        /// Of how many, as far as is known.
        total: u64,
        /// Bytes on the wire, so far.
        wire: u64,
        /// Bytes as they are, per second, lately.
        rate: u64,
    },
    /// It is chosen how an application's memory travels.
    StrategyChosen {
        /// How.
        strategy: Strategy,
        /// Why so.
        why: String,
    },
    /// A round of its memory has travelled while it ran.
    RoundEnded(Round),
    /// It gets less of the processor, for it writes faster than its memory travels.
    Throttled {
        /// How much was taken from it, in percent.
        percent: u32,
    },
    /// It runs at the destination, and its memory follows it.
    MemoryFollows {
        /// How much follows, in bytes.
        owed: u64,
        /// How much of that is there.
        done: u64,
        /// How often it has waited for some of it.
        faults: u64,
        /// Since it runs there, in milliseconds.
        ms: u64,
    },
    /// Something to know that made nothing fail: a hook that was ignored.
    Warning {
        /// What.
        message: String,
    },
    /// A container's policy has decided what becomes of its application, which has ended.
    PolicyDecided {
        /// What, and why.
        decided: Box<Decision>,
    },
    /// A container came, went, or changed what its application is doing.
    ContainerChanged {
        /// What the application does now.
        application: Application,
    },
}

impl What {
    /// The name of its kind, as in `type` and as SSE's `event`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::OperationStarted { .. } => "operation-started",
            Self::OperationEnded { .. } => "operation-ended",
            Self::PhaseStarted { .. } => "phase-started",
            Self::PhaseEnded { .. } => "phase-ended",
            Self::Progress { .. } => "progress",
            Self::StrategyChosen { .. } => "strategy-chosen",
            Self::RoundEnded(_) => "round-ended",
            Self::Throttled { .. } => "throttled",
            Self::MemoryFollows { .. } => "memory-follows",
            Self::Warning { .. } => "warning",
            Self::PolicyDecided { .. } => "policy-decided",
            Self::ContainerChanged { .. } => "container-changed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision() -> Decision {
        Decision {
            at: "2026-11-21T10:00:00Z".into(),
            action: "restore".into(),
            checkpoint: Some("latest".into()),
            reason: "exit code 3 after 1.0s: rule 1 (policy x)".into(),
            delay_ms: 0,
            code: Some(3),
            oom: false,
            restarts: 2,
            operation: "0a1b".into(),
        }
    }

    #[test]
    fn an_event_is_flat_and_its_name_is_its_type() {
        let all = [
            What::PhaseStarted { phase: "freeze".into(), side: Side::Source, frozen: true },
            What::PhaseEnded { phase: "freeze".into(), side: Side::Source, ms: 3 },
            What::Progress { phase: "restore".into(), done: 1, total: 2, wire: 1, rate: 9 },
            What::StrategyChosen { strategy: Strategy::PreCopy, why: "asked for".into() },
            What::RoundEnded(Round {
                round: 1,
                bytes: 4096,
                scan_ms: 1,
                ms: 2,
                rate: 1 << 20,
                dirty_rate: None,
                predicted_freeze_ms: Some(30),
            }),
            What::Throttled { percent: 20 },
            What::MemoryFollows { owed: 1 << 20, done: 4096, faults: 3, ms: 20 },
            What::Warning { message: "x".into() },
            What::PolicyDecided { decided: Box::new(decision()) },
            What::ContainerChanged { application: Application::Standby },
        ];
        for what in all {
            let event = Event {
                sequence: 7,
                at: "2026-11-21T10:00:00Z".into(),
                operation: Some("op".into()),
                key: None,
                container: None,
                what,
            };
            // As text: there a field that is there twice shows.
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(json["type"], event.what.name());
            assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        }
    }
}
