//! The columns: what is being done to the application when a fault strikes.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use super::gate::Gate;
use super::subject::Subject;
use crate::apps::migrating;
use crate::framework::{Background, Output};

/// More than any operation may take here.
const LIMIT: Duration = Duration::from_secs(120);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Normal,
    Checkpointing,
    Restoring,
    Migrating,
}

impl Phase {
    pub(super) const ALL: [Self; 4] = [Self::Normal, Self::Checkpointing, Self::Restoring, Self::Migrating];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal operation",
            Self::Checkpointing => "checkpointing",
            Self::Restoring => "restoring",
            Self::Migrating => "migrating",
        })
    }
}

/// What became of the operation that a fault struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// Nothing was being done.
    None,
    /// It succeeded all the same.
    Done,
    /// It failed, and said this.
    Failed(String),
}

impl Operation {
    pub(super) fn of(output: &Output) -> Self {
        if output.status.success() {
            return Self::Done;
        }
        Self::Failed(format!("{}{}", output.out(), output.err()))
    }

    /// What is to be told of it beside the application's fate.
    pub(super) fn word(&self, phase: Phase) -> &'static str {
        match (self, phase) {
            (Self::Failed(_), Phase::Checkpointing) => "the checkpoint fails",
            (Self::Failed(_), Phase::Restoring) => "the restore fails",
            (Self::Failed(_), Phase::Migrating) => "the migration fails",
            (Self::Done, Phase::Checkpointing) => "the checkpoint is taken",
            _ => "",
        }
    }
}

impl Subject {
    /// Lets `strike` happen while the phase's operation is under way.
    ///
    /// The first time CRIU waits at the gate meanwhile; later ones strike at a moment of chance.
    pub(super) fn during(
        &self,
        phase: Phase,
        number: u32,
        strike: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Operation> {
        if phase == Phase::Normal {
            return strike(self).map(|()| Operation::None);
        }
        let gate = self.gate_of(phase)?;
        if number == 0 {
            gate.close()?;
        }
        let mut running = self.operation(phase)?;
        let struck = if number == 0 {
            gate.wait(&mut running).and_then(|()| strike(self))
        } else {
            std::thread::sleep(chance(Duration::from_millis(300)));
            strike(self)
        };
        gate.open()?;
        let ended = running.wait(LIMIT).context("the operation does not end")?;
        struck?;
        Ok(Operation::of(&ended))
    }

    /// The phase's operation, with nothing done to it.
    pub(super) fn performed(&self, phase: Phase) -> Result<Operation> {
        let ended = self.operation(phase)?.wait(LIMIT).context("the operation does not end")?;
        Ok(Operation::of(&ended))
    }

    /// Begins the phase's operation.
    pub(super) fn operation(&self, phase: Phase) -> Result<Background> {
        let path = self.image();
        match phase {
            Phase::Normal => anyhow::bail!("nothing is done in normal operation"),
            Phase::Checkpointing => {
                self.source().host.cmd(["rm", "-rf", &path]).ok()?;
                let options = ["--leave-running", "--files", "--image-path", &path];
                self.source().operation("checkpoint", &options).spawn()
            }
            Phase::Restoring => self.source().operation("restore", &["--image-path", &path]).spawn(),
            Phase::Migrating => migrating::begin(self.source(), self.destination()),
        }
    }

    /// Whose CRIU waits in this phase: in a migration the destination's, while the application runs.
    pub(super) fn gate_of(&self, phase: Phase) -> Result<Gate<'_>> {
        Gate::of(if phase == Phase::Migrating { self.destination() } else { self.source() })
    }
}

/// Some time up to `most`.
pub(super) fn chance(most: Duration) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    most * (now.subsec_micros() % 1000) / 1000
}
