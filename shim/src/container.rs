//! One container of the shim: its task, its exec processes, and what containerd does to them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use fastmig_engine::{checkpoint, ExecRequest};
use tokio::sync::watch;

use crate::cgroup::Cgroup;
use crate::child::{Child, Exit};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::Error;
use crate::io::{Laid, Owner, Stdio};
use crate::oom::OomWatch;
use crate::process::Process;
use crate::rootfs::Rootfs;
use crate::state::{Action, State, Step};
use crate::stats;

/// How long a killed container may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A container, from its creation to its deletion.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) context: Arc<Context>,
    pub(crate) engine: Engine,
    pub(crate) init: Arc<Process>,
    pub(crate) traits: Traits,
    pub(crate) rootfs: Rootfs,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) oom: Option<OomWatch>,
    pub(crate) execs: Mutex<HashMap<String, Exec>>,
    /// How many exec processes run or are being started.
    pub(crate) running: watch::Sender<Running>,
    /// Held by what changes the task as a whole.
    pub(crate) operation: tokio::sync::Mutex<()>,
}

/// What the spec and the options say of a container.
#[derive(Debug, Clone)]
pub(crate) struct Traits {
    pub(crate) shares_pid_namespace: bool,
    pub(crate) stands_by_after_checkpoint: bool,
    pub(crate) io_uid: u32,
    pub(crate) io_gid: u32,
}

/// An exec process and what it is to run.
#[derive(Debug)]
pub(crate) struct Exec {
    process: Arc<Process>,
    spec: Vec<u8>,
}

/// The exec processes that an end of the container's init waits for.
#[derive(Debug, Default)]
pub(crate) struct Running {
    pub(crate) count: usize,
    /// The init has ended: no more are started.
    pub(crate) closed: bool,
}

impl Container {
    fn execs(&self) -> MutexGuard<'_, HashMap<String, Exec>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task's own process for an empty id, else the exec's.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>, Error> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let execs = self.execs();
        let exec = execs.get(exec_id).ok_or_else(|| Error::NoProcess { id: exec_id.into() })?;
        Ok(Arc::clone(&exec.process))
    }

    /// An exec process is paused when its container is.
    pub(crate) fn state_of(&self, process: &Process) -> State {
        match self.init.state() {
            State::Paused => State::Paused,
            _ => process.state(),
        }
    }

    /// Starts the command.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        self.init.check(Step::Start)?;
        self.engine.start().await?;
        // It may have ended by now, which is announced later.
        self.init.advance(Step::Start)
    }

    /// Adds an exec process.
    pub(crate) fn add_exec(&self, id: &str, stdio: Stdio, spec: Option<&Any>) -> Result<(), Error> {
        self.init.permits(Action::Exec)?;
        let invalid = |reason: String| Error::Invalid { what: "process spec", reason };
        let spec = spec.ok_or_else(|| invalid("missing".into()))?;
        let mut process: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&spec.value).map_err(|e| invalid(e.to_string()))?;
        process.insert("terminal".into(), stdio.terminal.into());
        let spec = serde_json::to_vec(&process).map_err(|e| invalid(e.to_string()))?;
        let mut execs = self.execs();
        if id.is_empty() || id == self.id || execs.contains_key(id) {
            return Err(Error::Taken { id: id.into() });
        }
        let process = Arc::new(Process::new(id.into(), stdio));
        execs.insert(id.into(), Exec { process, spec });
        Ok(())
    }

    /// Starts an exec process; the caller sees to it that its end is waited for.
    pub(crate) async fn start_exec(&self, process: &Process) -> Result<Arc<Child>, Error> {
        process.check(Step::Start)?;
        self.init.permits(Action::Exec)?;
        if !self.begin_exec() {
            return Err(Error::InitGone { id: self.id.clone() });
        }
        let started = self.spawn_exec(process).await;
        if started.is_err() {
            // It has no end that could be waited for.
            process.stopped().await;
            process.announce(Exit::unknown());
            self.end_exec();
        }
        started
    }

    async fn spawn_exec(&self, process: &Process) -> Result<Arc<Child>, Error> {
        let process_json = self
            .execs()
            .get(&process.id)
            .map(|exec| exec.spec.clone())
            .ok_or_else(|| Error::NoProcess { id: process.id.clone() })?;
        let reaper = &self.context.reaper;
        let (laid, stdio) = Laid::new(&process.stdio, &self.owner(&process.id), reaper).await?;
        let request = ExecRequest {
            exec_id: process.id.clone(),
            process_json,
            stdio,
            console_socket: laid.console_socket().map(Into::into),
        };
        let starting = reaper.starting();
        let pid = self.engine.exec(request).await?;
        let child = Child::adopt(reaper, pid).map_err(|e| Error::io("wait for", &process.id, e))?;
        drop(starting);
        let child = Arc::new(child);
        let io = laid.connect().await.inspect_err(|_| {
            // ESRCH: it has just ended.
            let _ = child.signal(libc::SIGKILL);
        })?;
        process.attach(pid, Arc::clone(&child), io).await;
        process.advance(Step::Start)?;
        Ok(child)
    }

    fn begin_exec(&self) -> bool {
        self.running.send_if_modified(|running| {
            if running.closed {
                return false;
            }
            running.count += 1;
            true
        })
    }

    /// An exec process is no more.
    pub(crate) fn end_exec(&self) {
        self.running.send_modify(|running| running.count -= 1);
    }

    pub(crate) fn owner<'a>(&'a self, id: &'a str) -> Owner<'a> {
        Owner { id, namespace: &self.context.namespace, uid: self.traits.io_uid, gid: self.traits.io_gid }
    }

    /// Signals the task (all of it when `all`), or one exec process.
    pub(crate) async fn kill(&self, exec_id: &str, signal: i32, all: bool) -> Result<(), Error> {
        let process = self.process(exec_id)?;
        let _before_its_end = process.kills.read().await;
        if !exec_id.is_empty() {
            return process.signal(signal);
        }
        match process.state() {
            State::Stopped | State::Deleted => Err(Error::Finished),
            State::Created | State::Running | State::Paused => self.engine.kill(signal, all).await,
        }
    }

    pub(crate) async fn pause(&self) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        self.init.check(Step::Pause)?;
        self.engine.pause().await?;
        self.init.advance(Step::Pause)
    }

    pub(crate) async fn resume(&self) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        self.init.check(Step::Resume)?;
        self.engine.resume().await?;
        self.init.advance(Step::Resume)
    }

    pub(crate) async fn checkpoint(&self, request: checkpoint::Request) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        self.init.permits(Action::Checkpoint)?;
        self.engine.checkpoint(request).await.map(|_| ())
    }

    pub(crate) async fn update(&self, resources: Vec<u8>) -> Result<(), Error> {
        self.init.permits(Action::Update)?;
        self.engine.update(resources).await
    }

    /// The host's pids of the container's processes, each with its exec id if it has one.
    pub(crate) async fn pids(&self) -> Result<Vec<(u32, Option<String>)>, Error> {
        let pids = self.engine.pids().await?;
        let execs: HashMap<u32, String> =
            self.execs().values().map(|exec| (exec.process.pid(), exec.process.id.clone())).collect();
        let pids = pids.into_iter().filter_map(|pid| u32::try_from(pid).ok());
        Ok(pids.map(|pid| (pid, execs.get(&pid).cloned())).collect())
    }

    pub(crate) async fn stats(&self) -> Result<Any, Error> {
        let cgroup = self.cgroup.clone().ok_or(Error::NoCgroup)?;
        tokio::task::spawn_blocking(move || stats::read(&cgroup)).await?
    }

    /// Deletes an exec process that has ended or never ran.
    pub(crate) async fn delete_exec(&self, process: &Process) -> Result<(), Error> {
        process.advance(Step::Delete)?;
        process.close_io().await;
        self.execs().remove(&process.id);
        Ok(())
    }

    /// Deletes the container, whose task has ended or never ran.
    pub(crate) async fn delete(&self) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        self.init.check(Step::Delete)?;
        if self.init.state() == State::Created {
            self.engine.delete(true).await?;
            if tokio::time::timeout(KILL_LIMIT, self.init.wait()).await.is_err() {
                log::warn!("the init of {} was killed but has not ended", self.id);
            }
        }
        self.init.close_io().await;
        self.engine.delete(false).await?;
        self.rootfs.unmount().await;
        self.init.advance(Step::Delete)
    }
}
