//! What is being done to an application: left behind by whoever does it, for whoever looks when the application ends.

use std::time::{Duration, SystemTime};

use fastmig_policy::Phase;
use serde::{Deserialize, Serialize};

use crate::files::replace;
use crate::migration::Role;
use crate::state::{Directory, ProcessMark};
use crate::Container;

const FILE: &str = "phase.json";

/// An end so soon after an operation is one of it: what it killed is reaped only when it has let go.
const AFTERWARDS: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Left {
    phase: Phase,
    /// Who is at it.
    by: Option<ProcessMark>,
    /// When it was over.
    over: Option<SystemTime>,
}

/// While this lives, the application is in this phase.
#[derive(Debug)]
pub(crate) struct InPhase {
    directory: Directory,
    phase: Phase,
}

impl InPhase {
    /// Says so, where somebody may look: the container has a policy. Failing to is no reason not to work.
    pub(crate) fn enter(container: &Container, phase: Phase) -> Option<Self> {
        if !container.has_policy().unwrap_or(false) {
            return None;
        }
        let entered = Self { directory: container.directory.clone(), phase };
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        entered.leave(&Left { phase, by: ProcessMark::of(me), over: None });
        Some(entered)
    }

    fn leave(&self, left: &Left) {
        let written = serde_json::to_vec(left).map_err(std::io::Error::from);
        if let Err(e) = written.and_then(|text| replace(&self.directory.file(FILE), &text)) {
            tracing::warn!(error = %e, "the phase is not written down");
        }
    }
}

impl Drop for InPhase {
    fn drop(&mut self) {
        self.leave(&Left { phase: self.phase, by: None, over: Some(SystemTime::now()) });
    }
}

/// What is, or was a moment ago, being done to the application.
pub(super) fn now(container: &Container) -> Phase {
    let record = container.directory.load(container.key());
    let leaves = |mark: crate::migration::Mark| mark.role == Role::Leaving;
    if record.is_ok_and(|record| record.migration.is_some_and(leaves)) {
        return Phase::Migrating;
    }
    let text = std::fs::read(container.directory.file(FILE)).unwrap_or_default();
    let Ok(left) = serde_json::from_slice::<Left>(&text) else { return Phase::Normal };
    let under_way = left.by.is_some_and(ProcessMark::runs);
    let just_over = left.over.is_some_and(|over| over.elapsed().is_ok_and(|since| since < AFTERWARDS));
    if under_way || just_over {
        left.phase
    } else {
        Phase::Normal
    }
}
