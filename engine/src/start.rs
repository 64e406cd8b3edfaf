//! How the application comes up: from scratch, from a checkpoint, or not yet.

use std::os::fd::AsFd;

use fastmig_control::{Change, ExecFailure, Reply, Request};
use fastmig_policy::Wanted;

use crate::container::Operation;
use crate::init::InitClient;
use crate::start_file::StartAs;
use crate::start_options::StartMode;
use crate::state::{Failure, Record};
use crate::tree::application;
use crate::tree::application::PID_BASE;
use crate::{checkpoints, keeper, recipient, restore, start_file, trace, Container, Error};

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

    /// What whoever starts it asks for, else what its operator has said since, else what its creator did.
    fn start_mode(&self, record: &Record) -> Result<StartMode, Error> {
        if record.must_restore {
            return Ok(record.start.clone());
        }
        let Some(file) = start_file::load(&self.config, &self.key)? else { return Ok(record.start.clone()) };
        Ok(match file.mode {
            None => record.start.clone(),
            Some(StartAs::Run) => StartMode::Run,
            Some(StartAs::Standby) => StartMode::Standby,
            Some(StartAs::Restore) => StartMode::Restore(match file.wanted() {
                Some(Ok(path)) => path,
                Some(Err(wanted)) => checkpoints::find(self, &wanted)?,
                None => checkpoints::find(self, &Wanted::Latest)?,
            }),
        })
    }

    /// Tells the init what the operator wants to be different about the command.
    fn change_command(&self, operation: &mut Operation, init: &InitClient) -> Result<(), Error> {
        let file = start_file::load(&self.config, &self.key)?.unwrap_or_default();
        let packets = file.packets();
        if operation.record.changed || !packets.is_empty() {
            let forget = Change::Forget.encode().unwrap_or_default();
            std::iter::once(&forget).chain(&packets).try_for_each(|packet| init.change(packet))?;
            operation.record.changed = !packets.is_empty();
            operation.save()?;
        }
        Ok(())
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
        let start = match self.start_mode(&operation.record) {
            Ok(start) => start,
            Err(e) => {
                tracing::error!(container = self.key.id(), error = %e.report(), "start options are wrong");
                operation.record.last_failure = Some(Failure::now("start", &e));
                operation.save()?;
                StartMode::Standby
            }
        };
        match start {
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
        trace::operation(&self.config, &self.key, "run", || {
            self.run_command(operation)?;
            operation.unlock_network();
            operation.save()
        })
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
    fn run_command(&self, operation: &mut Operation) -> Result<(), Error> {
        self.set_last_pid(PID_BASE)?;
        let init = self.init()?;
        self.change_command(operation, &init)?;
        let cgroup = self.application_cgroup()?;
        let path = cgroup.directory();
        cgroup.make().map_err(|e| Error::io("make", path, e))?;
        let entrance = cgroup.entrance().map_err(|e| Error::io("open", path, e))?;
        let asked = match &entrance {
            Some(entrance) => init.ask_with(&Request::Run, entrance.as_fd()),
            None => init.ask(&Request::Run),
        };
        let held = match asked? {
            Reply::Prepared { pid } => pid,
            Reply::ExecFailed(failure) => return self.end_unexecutable(operation, &init, failure),
            other => return Err(init.nonsense(&other)),
        };
        let host = application::host_pid_of(held.get(), application::children_of(self.pid));
        // An older init knows nothing of the entrance, and a security module may keep it from the process.
        if let Some(pid) = host.filter(|pid| !cgroup.pids().contains(pid)) {
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
