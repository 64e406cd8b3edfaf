//! The creation of a container, and its undoing when a step fails.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use containerd_shim::api::CreateTaskRequest;
use containerd_shim::protos::events::task::TaskOOM;
use fastmig_engine::start_options::StartMode;
use fastmig_engine::{Config, CreateRequest, Key, Voice};
use tokio::sync::watch;

use crate::cgroup::Cgroup;
use crate::child::Child;
use crate::container::{Container, Running, Traits};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::Error;
use crate::io::{Laid, Owner, ProcessIo, Stdio, Target};
use crate::oom::OomWatch;
use crate::options::Options;
use crate::process::Process;
use crate::rootfs::Rootfs;
use crate::spec::Spec;

/// Where tools look for the pid of the container's PID 1.
pub(crate) const PID_FILE: &str = "init.pid";

/// A new container, and the child whose end is to be supervised once the creation is announced.
pub(crate) async fn create(
    context: &Arc<Context>,
    request: &CreateTaskRequest,
) -> Result<(Arc<Container>, Arc<Child>), Error> {
    let bundle = PathBuf::from(&request.bundle);
    let options = Options::from_any(request.options.as_ref())?;
    options.save(&bundle)?;
    let spec = Spec::read(&bundle)?;
    let traits = Traits {
        shares_pid_namespace: spec.shares_pid_namespace(),
        stands_by_after_checkpoint: spec.stands_by_after_checkpoint()?,
        io_uid: options.io_uid,
        io_gid: options.io_gid,
    };
    let rootfs = Rootfs::mount(&bundle, request.rootfs.clone()).await?;
    let created = Created::new(context, request, &bundle, &options).await;
    let created = match created {
        Ok(created) => created,
        Err(error) => {
            rootfs.unmount().await;
            return Err(error);
        }
    };
    let pid = created.engine.pid();
    let child = Arc::new(created.child);
    let init = Arc::new(Process::new(request.id.clone(), stdio(request)));
    init.attach(pid, Arc::clone(&child), created.io).await;
    let cgroup = Cgroup::of(pid).inspect_err(|e| log::warn!("{}: no cgroup: {e}", request.id)).ok();
    let container = Container {
        id: request.id.clone(),
        bundle,
        context: Arc::clone(context),
        engine: created.engine,
        init,
        traits,
        rootfs,
        oom: cgroup.as_ref().and_then(|cgroup| watch_memory(context, &request.id, cgroup)),
        cgroup,
        execs: Mutex::default(),
        running: watch::Sender::new(Running::default()),
        operation: tokio::sync::Mutex::new(()),
    };
    Ok((Arc::new(container), child))
}

/// What the engine and runc have made, with its streams.
struct Created {
    engine: Engine,
    child: Child,
    io: ProcessIo,
}

impl Created {
    async fn new(
        context: &Arc<Context>,
        request: &CreateTaskRequest,
        bundle: &Path,
        options: &Options,
    ) -> Result<Self, Error> {
        let key =
            Key::new(&context.namespace, &request.id).map_err(Error::engine("OCI runtime create failed"))?;
        let config = tokio::task::spawn_blocking(Config::load)
            .await?
            .map_err(Error::engine("OCI runtime create failed"))?;
        let owner = Owner {
            id: &request.id,
            namespace: &context.namespace,
            uid: options.io_uid,
            gid: options.io_gid,
        };
        let (laid, fds) = Laid::new(&stdio(request), &owner, &context.reaper).await?;
        let wanted = CreateRequest {
            key,
            bundle: bundle.into(),
            runc: options.runc(&context.namespace, &config.runtime),
            stdio: fds,
            console_socket: laid.console_socket().map(Into::into),
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            voice: Voice::Ours,
            preserved: Vec::new(),
            start: checkpoint(request, options).map(StartMode::Restore),
            log: log_file(&request.stdout),
            pid_file: Some(bundle.join(PID_FILE)),
        };
        let starting = context.reaper.starting();
        let engine = Engine::create(Arc::new(config), wanted).await?;
        let adopted = Child::adopt(&context.reaper, engine.pid());
        drop(starting);
        let connected = match adopted {
            Ok(child) => laid.connect().await.map(|io| (child, io)),
            Err(e) => Err(Error::io("wait for the init of", &request.id, e)),
        };
        match connected {
            Ok((child, io)) => Ok(Self { engine, child, io }),
            Err(error) => {
                if let Err(left) = engine.delete(true).await {
                    log::error!("{} is left behind: {}", request.id, left.report());
                }
                Err(error)
            }
        }
    }
}

/// The image to begin from; a descriptor in the request wins over the option.
fn checkpoint(request: &CreateTaskRequest, options: &Options) -> Option<PathBuf> {
    [&request.checkpoint, &options.criu_image_path].into_iter().find(|path| !path.is_empty()).map(Into::into)
}

fn stdio(request: &CreateTaskRequest) -> Stdio {
    Stdio {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    }
}

/// The file that its output goes to, if it is one.
fn log_file(stdout: &str) -> Option<PathBuf> {
    match Target::parse(stdout) {
        Ok(Target::File(path)) => Some(path),
        Ok(Target::Path(path)) => Some(path).filter(|path| path.is_file()),
        _ => None,
    }
}

/// From its creation on a container can run out of memory.
fn watch_memory(context: &Arc<Context>, id: &str, cgroup: &Cgroup) -> Option<OomWatch> {
    let (events, container_id) = (context.events.clone(), id.to_owned());
    let report = move || {
        events.publish(TaskOOM { container_id: container_id.clone(), ..TaskOOM::default() });
    };
    OomWatch::new(cgroup, report).inspect_err(|e| log::warn!("{id}: no OOM events: {e}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_image_wins_over_the_options() {
        let mut request = CreateTaskRequest::default();
        let mut options = Options::default();
        assert_eq!(checkpoint(&request, &options), None);
        options.criu_image_path = "/options".into();
        assert_eq!(checkpoint(&request, &options), Some("/options".into()));
        request.checkpoint = "/request".into();
        assert_eq!(checkpoint(&request, &options), Some("/request".into()));
    }
}
