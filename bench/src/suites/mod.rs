//! The suites, in the order in which they run.

mod brownout;
mod checkpoint;
mod growth;
mod migration;
mod pids;
mod policy;
mod start;
mod steady;
mod warm;
mod wire;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::bench::Bench;

/// Measures, into the book; what keeps the whole suite from going on is an error.
type Run = fn(&mut Bench) -> Result<()>;

/// One suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// How long a program stands still when it moves, what that takes, and what else would move it
    Migration,
    /// What it saves that a container waits for what moves into it
    Warm,
    /// What a checkpoint costs after which the program runs on, and what is written
    Checkpoint,
    /// What the life of a container costs, and the memory of what stands behind it
    Start,
    /// What a program does in a second while nothing is done to it
    Steady,
    /// What deciding about an application that has ended costs, by the length of its log
    Policy,
    /// How the gap grows with memory and with processes, and the limit beside it
    Growth,
    /// How fast memory travels as migrations send it, beside plain TCP
    Wire,
    /// What a redis that is written answers before, during and after its move
    Brownout,
    /// How long a restore of many processes takes, beside one with the same memory
    Pids,
}

impl Suite {
    /// Its name.
    pub const fn name(self) -> &'static str {
        self.plan().0
    }

    /// Its name, how many seconds it may go on with further rounds when the run is quick, and how it is run.
    const fn plan(self) -> (&'static str, u64, Run) {
        match self {
            Self::Migration => ("migration", 210, migration::run),
            Self::Warm => ("warm", 40, warm::run),
            Self::Checkpoint => ("checkpoint", 40, checkpoint::run),
            Self::Start => ("start", 60, start::run),
            Self::Steady => ("steady", 60, steady::run),
            Self::Policy => ("policy", 10, policy::run),
            Self::Growth => ("growth", 10, growth::run),
            Self::Wire => ("wire", 15, wire::run),
            Self::Brownout => ("brownout", 15, brownout::run),
            Self::Pids => ("pids", 15, pids::run),
        }
    }

    /// Measures.
    ///
    /// # Errors
    /// What keeps the whole suite from going on; parts that fail are in the book.
    pub fn run(self, bench: &mut Bench) -> Result<()> {
        let (name, seconds, run) = self.plan();
        let limit = if bench.how.quick { seconds } else { 20 * seconds };
        bench.begin(name, Duration::from_secs(limit));
        run(bench)
    }
}
