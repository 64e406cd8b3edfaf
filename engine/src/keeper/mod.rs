//! The keeper of a container that has a fault policy: one process beside it that hears from the init when the application
//! has ended, decides by the policy, and does it.
//!
//! It belongs to nobody: whoever starts the container starts it (shim, wrapper, or the process that attends `runc run`),
//! and it outlives them. There is one for each container, told by a lock; should it be killed, the daemon, or the next
//! operation on the container, starts another, and as long as none answers the init waits, and then ends the container as
//! on runc. Every program of ours can be one: it executes itself by other words ([`run_if_asked`]).
//!
//! ```text
//!   init: Exited ──► phase, OOM kills ──► Standby ──► waits? ──► facts ──► rules ──► journal ──► back-off ──► act
//!                                                       │ no: marked, or somebody else has acted
//!                                                       ▼
//!                                                     listen on
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `spawn` | one process, nobody's child, with nothing inherited |
//! | `watch` | what the init tells, and what is asked of it |
//! | `memory` | kills for want of memory, as the container's cgroup counts them |
//! | `phase` | what is being done to the application, for whoever looks when it ends |
//! | [`journal`] | what was decided about this container, and on this host |
//! | `decide` | facts, and what the policy makes of them |
//! | `act` | the decision, done |

mod act;
mod decide;
pub mod journal;
mod memory;
pub(crate) mod phase;
mod spawn;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use fastmig_control::{Event, ExitStatus};
use fastmig_policy::Phase;

use self::journal::Journal;
use self::memory::OomKills;
use self::spawn::OnlyOne;
pub(crate) use self::spawn::{ensure, keeper_of};
use self::watch::{Heard, Watch};
use crate::state::Key;
use crate::trace::Traced;
use crate::{Config, Container, Error};

/// The word that makes a program of ours a keeper.
pub(crate) const WORD: &str = "keep-container";

/// Becomes the keeper of a container, if that is what this process was started for.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(WORD) {
        return None;
    }
    let [Some(namespace), Some(id)] = [arguments.next(), arguments.next()] else {
        return Some(ExitCode::FAILURE);
    };
    if arguments.next().as_deref() != Some(spawn::ALONE) {
        return Some(spawn::step_aside(&namespace, &id));
    }
    let kept = Config::load().and_then(|config| keep(Arc::new(config), &Key::new(&namespace, &id)?));
    Some(if kept.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Keeps a container until it ends. Returns at once where it is kept already, or has no policy.
fn keep(config: Arc<Config>, key: &Key) -> Result<(), Error> {
    let container = Container::open(config, key)?;
    let Some(_only) = OnlyOne::take(&container)? else { return Ok(()) };
    if !container.has_policy()? {
        return Ok(());
    }
    let mut keeper = Keeper {
        oom: OomKills::of(container.pid()),
        journal: Journal::open(&container),
        end: None,
        container,
    };
    loop {
        match keeper.listen() {
            Ok(()) => return Ok(()),
            // The init has dropped us, who were too slow for it, or has no room; or it is gone.
            Err(e) if keeper.container.is_up() => {
                tracing::warn!(container = key.id(), error = %e.report(), "the init was lost sight of");
                std::thread::sleep(watch::PAUSE);
            }
            Err(_) => return Ok(()),
        }
    }
}

/// How the application ended, as far as it is known the moment it happens.
#[derive(Debug, Clone, Copy)]
struct End {
    status: ExitStatus,
    phase: Phase,
    oom: bool,
}

struct Keeper {
    container: Container,
    oom: OomKills,
    journal: Journal,
    end: Option<End>,
}

impl Keeper {
    /// Hears what happens until the container ends.
    fn listen(&mut self) -> Result<(), Error> {
        let watch = Watch::begin(&self.container)?;
        // Something may have ended before we were there to hear of it.
        self.attend(&watch)?;
        loop {
            match watch.hear(None)? {
                Heard::Event(Event::Started { .. } | Event::Restored { .. }) => {
                    self.end = None;
                    self.oom.begin(&mut self.journal);
                }
                Heard::Event(Event::Exited { status, .. }) => self.end = Some(self.look(status)),
                Heard::Event(Event::Standby) => self.attend(&watch)?,
                Heard::Nothing => {}
                Heard::End => return Ok(()),
            }
        }
    }

    fn look(&self, status: ExitStatus) -> End {
        End { status, phase: phase::now(&self.container), oom: self.oom.happened(&self.journal) }
    }

    /// Decides, if the init waits for it, and does what was decided.
    fn attend(&mut self, watch: &Watch) -> Result<(), Error> {
        let Some(account) = watch.waits()? else { return Ok(()) };
        let end = match (self.end.take(), watch.last_exit()?) {
            (Some(end), _) => end,
            (None, Some(status)) => self.look(status),
            (None, None) => return Ok(()),
        };
        let begun = Instant::now();
        // What is decided and what is done have one id.
        let traced = Traced::on(&self.container.config, self.container.key(), None);
        let _scope = traced.enter();
        let facts = self.facts(end, account);
        let decided = self.decide(&facts);
        tracing::debug!(took = ?begun.elapsed(), reason = decided.reason, "decided");
        self.carry_out(watch, facts, decided)
    }
}
