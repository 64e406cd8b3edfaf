//! What CRIU restores is held before any of it runs: frozen, and alone in its cgroup.

use std::io;
use std::thread::JoinHandle;

use fastmig_criu::Notification;

use crate::container::Container;
use crate::recipient::Recipient;
use crate::tree::application;
use crate::Error;

/// A restore at whose end the application is frozen.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    container: &'a Container,
    recipient: &'a Recipient<'a>,
    /// CRIU's process, as the host counts it.
    criu: i32,
    leaving: Option<JoinHandle<()>>,
}

impl<'a> Hold<'a> {
    pub(crate) const fn new(container: &'a Container, recipient: &'a Recipient<'a>, criu: i32) -> Self {
        Self { container, recipient, criu, leaving: None }
    }

    /// What is due at a stage of CRIU's, the recipient's part included.
    pub(crate) fn follow(&mut self, stage: Notification) -> Result<(), String> {
        if stage == Notification::SetupNamespaces {
            self.leaving = Some(self.let_criu_leave().map_err(|e| e.report())?);
        }
        if stage == Notification::PreResume {
            drop(self.leaving.take().map(JoinHandle::join));
            let held = self.freeze().inspect_err(|_| self.recipient.kill_before_it_runs());
            held.map_err(|e| e.report())?;
        }
        self.recipient.follow(stage)
    }

    /// CRIU itself need not be where its children are, and to leave takes a moment: it does so while they are restored.
    fn let_criu_leave(&self) -> Result<JoinHandle<()>, Error> {
        let cgroup = self.container.application_cgroup()?;
        // Now, while it waits for us: soon there are restored processes that nobody knows yet, and these stay.
        let leaving = application::tree_without(self.criu, self.recipient.host_root());
        Ok(std::thread::spawn(move || {
            for pid in leaving {
                if let Err(error) = cgroup.leave(pid) {
                    tracing::debug!(pid, %error, "it is asked to leave once more");
                }
            }
        }))
    }

    /// None of what was restored has run yet. CRIU, which still traces it, was in its cgroup until now.
    fn freeze(&self) -> Result<(), Error> {
        let cgroup = self.container.application_cgroup()?;
        let failed = |e| Error::io("hold what was restored in", cgroup.directory(), e);
        let root = self.recipient.host_root().ok_or(io::ErrorKind::NotFound.into()).map_err(failed)?;
        let here = cgroup.pids();
        for pid in application::tree_without(self.criu, Some(root)) {
            if here.contains(&pid) {
                cgroup.leave(pid).map_err(failed)?;
            }
        }
        self.container.freeze()
    }
}
