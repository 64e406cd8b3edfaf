//! A decision, done: written down first, after its wait, under the container's lock, and only if it is still wanted.

use std::time::{Duration, Instant};

use fastmig_policy::{Action, Decision, Facts, Wanted};

use super::watch::{Heard, Watch};
use super::Keeper;
use crate::container::Operation;
use crate::state::Failure;
use crate::{checkpoints, recipient, restore, Error};

/// A restore that fails is decided anew; not for ever.
const TRIES: u32 = 3;

/// Between two looks at a migration that is not decided.
const LOOK: Duration = Duration::from_millis(200);

/// What came of a try.
enum Tried {
    /// It is done, or somebody else has done something.
    Done,
    /// A restore failed; the container is in standby and waits.
    NotRestored(Error),
}

impl Keeper {
    /// Does what was decided, and what is decided when that fails.
    pub(super) fn carry_out(&mut self, watch: &Watch, facts: Facts, decision: Decision) -> Result<(), Error> {
        let (mut facts, mut decision) = (facts, decision);
        for _ in 0..TRIES {
            decision = self.completed(decision);
            self.journal.note(&facts, &decision);
            let failed = match self.try_once(watch, &facts, &decision)? {
                Tried::Done => return Ok(()),
                Tried::NotRestored(error) => error,
            };
            facts = Facts::not_restored();
            decision = self.decide(&facts);
            decision.reason = format!("{} ({})", decision.reason, failed.report());
        }
        let reason = format!("{TRIES} restores in a row failed; the last decision was {}", decision.reason);
        let standby = Decision { action: Action::Standby, delay: Duration::ZERO, reason };
        self.journal.note(&facts, &standby);
        self.try_once(watch, &facts, &standby).map(drop)
    }

    /// Where there is nothing to restore from, the application starts from scratch.
    fn completed(&self, decision: Decision) -> Decision {
        match &decision.action {
            Action::Restore { checkpoint: Wanted::Latest }
                if checkpoints::latest_of(&self.container).is_none() =>
            {
                let reason = format!("{}; there is no checkpoint yet", decision.reason);
                Decision { action: Action::Scratch, reason, ..decision }
            }
            _ => decision,
        }
    }

    fn try_once(&self, watch: &Watch, facts: &Facts, decision: &Decision) -> Result<Tried, Error> {
        match &decision.action {
            Action::Exit => watch.end(facts.code.unwrap_or(1)).map(|()| Tried::Done),
            Action::Standby => self.stand_by(watch, &decision.reason).map(|()| Tried::Done),
            Action::Scratch | Action::Restore { .. } => {
                if !self.wait(watch, decision.delay)? {
                    return Ok(Tried::Done);
                }
                self.bring_up(watch, &decision.action)
            }
        }
    }

    /// The back-off. False when nobody waits for us any more.
    fn wait(&self, watch: &Watch, delay: Duration) -> Result<bool, Error> {
        let config = &self.container.config;
        // Behind it another operation may hold the lock.
        if !watch.postpone(delay + config.limits.lock() + config.limits.decision())? {
            return Ok(false);
        }
        let deadline = Instant::now() + delay;
        loop {
            match watch.hear(Some(deadline))? {
                Heard::End => return Ok(false),
                Heard::Nothing => return Ok(true),
                // Somebody else brings something up.
                Heard::Event(_) => {}
            }
        }
    }

    fn bring_up(&self, watch: &Watch, action: &Action) -> Result<Tried, Error> {
        let Some(mut operation) = self.begin(watch)? else { return Ok(Tried::Done) };
        let container = &self.container;
        recipient::abandon_interrupted(container)?;
        if watch.waits()?.is_none() {
            return Ok(Tried::Done);
        }
        let result = match action {
            Action::Restore { checkpoint } => {
                let restored = checkpoints::find(container, checkpoint).and_then(|path| {
                    restore::perform(container, &mut operation, &restore::Request::new(path))
                });
                return Ok(restored.map_or_else(Tried::NotRestored, |_| Tried::Done));
            }
            _ => container.run_from_scratch(&mut operation),
        };
        match result {
            Ok(()) => Ok(Tried::Done),
            Err(e) if !container.is_up() => Err(e),
            Err(e) => {
                operation.record.last_failure = Some(Failure::now("run", &e));
                operation.save()?;
                watch.stay().map(|_| Tried::Done)
            }
        }
    }

    /// The container's lock, once no migration is undecided. None when nobody waits for us any more.
    fn begin(&self, watch: &Watch) -> Result<Option<Operation>, Error> {
        loop {
            match self.container.begin_warm("restart the application of") {
                Ok(operation) => return Ok(Some(operation)),
                Err(Error::Migrating { .. } | Error::Busy { .. }) => {}
                Err(_) if !self.container.is_up() => return Ok(None),
                Err(e) => return Err(e),
            }
            if !watch.postpone(self.container.config.limits.lock())? {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Its status says why.
    fn stand_by(&self, watch: &Watch, reason: &str) -> Result<(), Error> {
        if watch.stay()? {
            let mut operation = self.container.begin()?;
            operation.record.last_failure = Some(Failure::because("policy", reason));
            operation.save()?;
        }
        Ok(())
    }
}
