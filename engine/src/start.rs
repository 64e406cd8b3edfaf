//! How the application comes up: from scratch, from a checkpoint, or not yet.

use fastmig_control::{ExecFailure, Reply, Request};

use crate::application::PID_BASE;
use crate::container::Operation;
use crate::init::InitClient;
use crate::start_options::StartMode;
use crate::{application, keeper, recipient, restore, Container, Error};

impl Container {
    /// Starts it: the application runs, waits in standby or is restored, as was asked at its creation.
    ///
    /// # Errors
    /// When runc fails, or the restore that the creation asked for. A failed restore that an annotation asked
    /// for is no error: the container is in standby, and its status says why.
    pub fn start(&self) -> Result<(), Error> {
        let mut operation = self.begin()?;
        self.runc(&operation.record).run(&["start", self.key.id()])?;
        operation.record.started = true;
        operation.save()?;
        self.come_up(&mut operation)
    }

    /// [`Container::start`] where runc has started it already.
    pub(crate) fn bring_up(&self) -> Result<(), Error> {
        self.come_up(&mut self.begin()?)
    }

    fn come_up(&self, operation: &mut Operation) -> Result<(), Error> {
        if !self.is_warm() {
            return Ok(());
        }
        self.put_under_policy(operation)?;
        match operation.record.start.clone() {
            StartMode::Run => self.run_command(operation),
            StartMode::Standby => self.init()?.status().map(|_| ()),
            StartMode::Restore(path) => {
                let result = restore::perform(self, operation, &restore::Request::new(path));
                match result {
                    Err(e) if operation.record.must_restore => Err(e),
                    Err(e) => {
                        tracing::error!(container = self.key.id(), error = %e.report(), "restore at start failed");
                        Ok(())
                    }
                    Ok(_) => Ok(()),
                }
            }
        }
    }

    /// Runs the container's command in a container that is in standby.
    ///
    /// # Errors
    /// When its application is not in standby, or the command cannot be executed.
    pub fn run(&self) -> Result<(), Error> {
        let mut operation = self.begin_warm("run the application of")?;
        recipient::abandon_interrupted(self)?;
        self.require_standby("run the application of")?;
        self.run_from_scratch(&mut operation)
    }

    /// As [`Container::run`], in an operation that is under way, in standby.
    pub(crate) fn run_from_scratch(&self, operation: &mut Operation) -> Result<(), Error> {
        self.run_command(operation)?;
        operation.unlock_network();
        operation.save()
    }

    /// From here on an end of the application is for its policy to decide, if it has one.
    fn put_under_policy(&self, operation: &Operation) -> Result<(), Error> {
        if operation.record.policy.is_none() {
            return Ok(());
        }
        let patience_ms = u32::try_from(self.config.limits.decision().as_millis()).unwrap_or(u32::MAX);
        self.init()?.ask(&Request::Ask { patience_ms })?;
        keeper::ensure(self).map(drop)
    }

    /// Init holds the new process until it is in the application's cgroup.
    fn run_command(&self, operation: &Operation) -> Result<(), Error> {
        self.set_last_pid(PID_BASE)?;
        let init = self.init()?;
        let held = match init.ask(&Request::Run)? {
            Reply::Prepared { pid } => pid,
            Reply::ExecFailed(failure) => return self.end_unexecutable(operation, &init, failure),
            other => return Err(init.nonsense(&other)),
        };
        let host = application::host_pid_of(held.get(), application::children_of(self.pid));
        let cgroup = self.application_cgroup()?;
        let path = cgroup.directory();
        cgroup.make().map_err(|e| Error::io("make", path, e))?;
        if let Some(pid) = host {
            cgroup.add(pid).map_err(|e| Error::io("put the application into", path, e))?;
        }
        match init.ask(&Request::Release)? {
            Reply::Running { .. } => Ok(()),
            Reply::ExecFailed(failure) => self.end_unexecutable(operation, &init, failure),
            other => Err(init.nonsense(&other)),
        }
    }

    /// As on runc, a command that cannot be executed ends the container with code 1; its words are on stderr.
    fn end_unexecutable(
        &self,
        operation: &Operation,
        init: &InitClient,
        failure: ExecFailure,
    ) -> Result<(), Error> {
        let name = operation.record.command.first().map_or("", String::as_str);
        tracing::warn!(container = self.key.id(), reason = failure.sentence(name), "command not executed");
        init.ask(&Request::End { code: 1 }).map(|_| ())
    }
}
