//! A dump that is asked for while the application still runs: what CRIU does before it touches anything costs no time of the freeze.

use std::io;

use super::{acknowledgement, CriuError, Notification, Session, Word};
use crate::{DumpOptions, Life};

const ACTION: &str = "dump";

/// A worker that has a request, and waits with it before it touches anything. Dropped, it is killed.
#[derive(Debug)]
pub struct PreparedDump {
    session: Session,
    waits: bool,
}

impl Session {
    /// Asks for a dump, and does not wait for anything.
    ///
    /// # Errors
    /// When the worker has died.
    pub fn prepare_dump(mut self, options: &DumpOptions) -> Result<PreparedDump, CriuError> {
        self.say(ACTION, &options.request(self.log.detail()))?;
        Ok(PreparedDump { session: self, waits: false })
    }
}

impl PreparedDump {
    /// What tells, from any thread, whether the worker lives.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn life(&self) -> io::Result<Life> {
        self.session.life()
    }

    /// Fails when the worker has ended.
    ///
    /// # Errors
    /// When it has, and how.
    pub fn require_alive(&mut self) -> Result<(), CriuError> {
        self.session.require_alive(ACTION)
    }

    /// Waits until the worker has come to where it waits.
    ///
    /// # Errors
    /// When CRIU refuses the request, dies or exceeds the limit.
    pub fn ready(&mut self) -> Result<(), CriuError> {
        self.session.begin_again();
        while !self.waits {
            match self.session.next(ACTION)? {
                Word::Stage(Notification::PreDump) => self.waits = true,
                Word::Stage(_) => self.session.say(ACTION, &acknowledgement())?,
                Word::Answer(_) => return Err(too_early()),
            }
        }
        Ok(())
    }

    /// Dumps. Whatever the outcome, no dumped task has been killed. The worker, which has let go of all of them, ends behind the
    /// caller's back.
    ///
    /// # Errors
    /// When CRIU fails, dies or exceeds the limit.
    pub fn dump(mut self) -> Result<(), CriuError> {
        self.ready()?;
        let mut session = self.session;
        session.begin_again();
        session.say(ACTION, &acknowledgement())?;
        while let Word::Stage(_) = session.next(ACTION)? {
            session.say(ACTION, &acknowledgement())?;
        }
        std::thread::spawn(move || session.finish());
        Ok(())
    }
}

fn too_early() -> CriuError {
    CriuError::Nonsense { action: ACTION, what: "it was over before it was to begin".into() }
}
