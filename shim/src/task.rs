//! containerd's Task service: request, response and event, and nothing else.

use std::collections::hash_map::{Entry, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use containerd_shim::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
    StateRequest, StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};
use containerd_shim::protos::events::task::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskIO, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::shim::oci::ProcessDetails;
use containerd_shim::protos::types::task::ProcessInfo;
use containerd_shim::util::convert_to_any;
use containerd_shim::{ExitSignal, Task, TtrpcContext, TtrpcResult};
use tokio::sync::watch;

use crate::child::Exit;
use crate::container::Container;
use crate::context::Context;
use crate::error::Error;
use crate::events::to_timestamp;
use crate::io::Stdio;
use crate::state::State;
use crate::{checkpoint, create, supervise};

/// The tasks of this shim, as the ttrpc server holds them.
pub(crate) struct TaskService(pub(crate) Arc<Tasks>);

/// The tasks of this shim.
pub(crate) struct Tasks {
    context: Arc<Context>,
    containers: Mutex<HashMap<String, Slot>>,
    exit: Arc<ExitSignal>,
}

enum Slot {
    /// The id is taken by a creation that is under way; its end is the channel's.
    Creating(watch::Receiver<()>),
    Ready(Arc<Container>),
}

type Result<T> = std::result::Result<T, Error>;

impl Tasks {
    pub(crate) fn new(context: Arc<Context>, exit: Arc<ExitSignal>) -> Self {
        Self { context, containers: Mutex::default(), exit }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container, once it is created: clients ask for it, or close its input, while containerd still waits for the
    /// creation, and do not ask again.
    async fn container(&self, id: &str) -> Result<Arc<Container>> {
        loop {
            let mut creation = match self.containers().get(id) {
                Some(Slot::Ready(container)) => return Ok(Arc::clone(container)),
                Some(Slot::Creating(creation)) => creation.clone(),
                None => return Err(Error::NoContainer),
            };
            // An error: whoever creates it is done.
            let _ = creation.changed().await;
        }
    }

    async fn create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let (_until_created, creation) = watch::channel(());
        match self.containers().entry(request.id.clone()) {
            Entry::Occupied(_) => return Err(Error::Taken { id: request.id }),
            Entry::Vacant(slot) => slot.insert(Slot::Creating(creation)),
        };
        let (container, child) = match create::create(&self.context, &request).await {
            Ok(created) => created,
            Err(error) => {
                self.containers().remove(&request.id);
                return Err(error);
            }
        };
        let pid = container.init.pid();
        self.containers().insert(request.id.clone(), Slot::Ready(Arc::clone(&container)));
        self.context.events.publish(TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..TaskIO::default()
            }),
            checkpoint: request.checkpoint,
            pid,
            ..TaskCreate::default()
        });
        tokio::spawn(supervise::init(container, child));
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, request: StartRequest) -> Result<StartResponse> {
        let container = self.container(&request.id).await?;
        let process = container.process(&request.exec_id)?;
        let _until_announced = process.announcements.lock().await;
        if request.exec_id.is_empty() {
            container.start().await?;
        } else {
            let child = container.start_exec(&process).await?;
            tokio::spawn(supervise::exec(Arc::clone(&container), Arc::clone(&process), child));
        }
        let pid = process.pid();
        if request.exec_id.is_empty() {
            self.context.events.publish(TaskStart { container_id: request.id, pid, ..TaskStart::default() });
        } else {
            self.context.events.publish(TaskExecStarted {
                container_id: request.id,
                exec_id: request.exec_id,
                pid,
                ..TaskExecStarted::default()
            });
        }
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn exec(&self, request: ExecProcessRequest) -> Result<Empty> {
        let container = self.container(&request.id).await?;
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        container.add_exec(&request.exec_id, stdio, request.spec.as_ref())?;
        self.context.events.publish(TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..TaskExecAdded::default()
        });
        Ok(Empty::new())
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse> {
        let container = self.container(&request.id).await?;
        let process = container.process(&request.exec_id)?;
        if request.exec_id.is_empty() {
            container.delete().await?;
            self.containers().remove(&request.id);
        } else {
            container.delete_exec(&process).await?;
        }
        let pid = process.pid();
        let (exit_status, exited_at) = exit_fields(process.exit());
        if request.exec_id.is_empty() {
            self.context.events.publish(TaskDelete {
                container_id: request.id,
                pid,
                exit_status,
                exited_at: exited_at.clone(),
                ..TaskDelete::default()
            });
        }
        Ok(DeleteResponse { pid, exit_status, exited_at, ..DeleteResponse::default() })
    }

    async fn state(&self, request: StateRequest) -> Result<StateResponse> {
        let container = self.container(&request.id).await?;
        let process = container.process(&request.exec_id)?;
        let (exit_status, exited_at) = exit_fields(process.exit());
        let status = match container.state_of(&process) {
            State::Created => Status::CREATED,
            State::Running => Status::RUNNING,
            State::Paused => Status::PAUSED,
            State::Stopped | State::Deleted => Status::STOPPED,
        };
        Ok(StateResponse {
            id: process.id.clone(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid(),
            status: status.into(),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status,
            exited_at,
            exec_id: request.exec_id,
            ..StateResponse::default()
        })
    }

    async fn wait(&self, request: WaitRequest) -> Result<WaitResponse> {
        let process = self.container(&request.id).await?.process(&request.exec_id)?;
        let (exit_status, exited_at) = exit_fields(Some(process.wait().await));
        Ok(WaitResponse { exit_status, exited_at, ..WaitResponse::default() })
    }

    async fn pids(&self, request: PidsRequest) -> Result<PidsResponse> {
        let mut processes = Vec::new();
        for (pid, exec_id) in self.container(&request.id).await?.pids().await? {
            let info = exec_id.map(process_details).transpose()?;
            processes.push(ProcessInfo { pid, info: info.into(), ..ProcessInfo::default() });
        }
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn kill(&self, request: KillRequest) -> Result<Empty> {
        let signal = i32::try_from(request.signal)
            .map_err(|e| Error::Invalid { what: "signal", reason: e.to_string() })?;
        self.container(&request.id).await?.kill(&request.exec_id, signal, request.all).await?;
        Ok(Empty::new())
    }

    async fn pause(&self, request: PauseRequest) -> Result<Empty> {
        self.container(&request.id).await?.pause().await?;
        self.context.events.publish(TaskPaused { container_id: request.id, ..TaskPaused::default() });
        Ok(Empty::new())
    }

    async fn resume(&self, request: ResumeRequest) -> Result<Empty> {
        self.container(&request.id).await?.resume().await?;
        self.context.events.publish(TaskResumed { container_id: request.id, ..TaskResumed::default() });
        Ok(Empty::new())
    }

    async fn checkpoint(&self, request: CheckpointTaskRequest) -> Result<Empty> {
        let container = self.container(&request.id).await?;
        let wanted = checkpoint::request(&request, container.traits.stands_by_after_checkpoint)?;
        let checkpoint = wanted.path.to_string_lossy().into_owned();
        container.checkpoint(wanted).await?;
        self.context.events.publish(TaskCheckpointed {
            container_id: request.id,
            checkpoint,
            ..TaskCheckpointed::default()
        });
        Ok(Empty::new())
    }

    async fn update(&self, request: UpdateTaskRequest) -> Result<Empty> {
        let container = self.container(&request.id).await?;
        let resources = request.resources.into_option().map(|any| any.value);
        let missing = || Error::Invalid { what: "resources", reason: "missing".into() };
        container.update(resources.ok_or_else(missing)?).await?;
        Ok(Empty::new())
    }

    async fn resize_pty(&self, request: ResizePtyRequest) -> Result<Empty> {
        let size = |length: u32| {
            u16::try_from(length).map_err(|e| Error::Invalid { what: "size", reason: e.to_string() })
        };
        let process = self.container(&request.id).await?.process(&request.exec_id)?;
        process.resize(size(request.width)?, size(request.height)?)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, request: CloseIORequest) -> Result<Empty> {
        self.container(&request.id).await?.process(&request.exec_id)?.close_stdin();
        Ok(Empty::new())
    }

    async fn stats(&self, request: StatsRequest) -> Result<StatsResponse> {
        let stats = self.container(&request.id).await?.stats().await?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    async fn connect(&self, request: ConnectRequest) -> Result<ConnectResponse> {
        let task_pid = self.container(&request.id).await.map_or(0, |container| container.init.pid());
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..ConnectResponse::default() })
    }

    async fn shutdown(&self, _request: ShutdownRequest) -> Result<Empty> {
        // A pod's shim ends with its last container.
        if self.containers().is_empty() {
            self.exit.signal();
        }
        Ok(Empty::new())
    }
}

fn exit_fields(
    exit: Option<Exit>,
) -> (u32, MessageField<containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp>) {
    exit.map_or_else(Default::default, |exit| (exit.status, MessageField::some(to_timestamp(exit.at))))
}

fn process_details(exec_id: String) -> Result<Any> {
    let details = ProcessDetails { exec_id, ..ProcessDetails::default() };
    convert_to_any(Box::new(details)).map_err(|source| Error::Encode { what: "process details", source })
}

/// Runs a request to its end even when containerd has stopped waiting for the answer: half of an operation
/// would be worse than one that nobody asked for any more.
async fn to_the_end<T: Send + 'static>(
    name: &'static str,
    id: String,
    request: impl Future<Output = Result<T>> + Send + 'static,
) -> TtrpcResult<T> {
    let result = tokio::spawn(request).await.map_err(Error::from).and_then(|result| result);
    result.map_err(|error| {
        log::debug!("{name} {id}: {}", error.report());
        error.into()
    })
}

/// The service's methods, each answered by the one of the same name above.
macro_rules! serve {
    ($($method:ident: $request:ident => $response:ident),* $(,)?) => {
        #[async_trait]
        impl Task for TaskService {
            $(
                async fn $method(&self, _: &TtrpcContext, request: $request) -> TtrpcResult<$response> {
                    let tasks = Arc::clone(&self.0);
                    let id = request.id.clone();
                    to_the_end(stringify!($method), id, async move { tasks.$method(request).await }).await
                }
            )*
        }
    };
}

serve! {
    state: StateRequest => StateResponse,
    create: CreateTaskRequest => CreateTaskResponse,
    start: StartRequest => StartResponse,
    delete: DeleteRequest => DeleteResponse,
    pids: PidsRequest => PidsResponse,
    pause: PauseRequest => Empty,
    resume: ResumeRequest => Empty,
    checkpoint: CheckpointTaskRequest => Empty,
    kill: KillRequest => Empty,
    exec: ExecProcessRequest => Empty,
    resize_pty: ResizePtyRequest => Empty,
    close_io: CloseIORequest => Empty,
    update: UpdateTaskRequest => Empty,
    wait: WaitRequest => WaitResponse,
    stats: StatsRequest => StatsResponse,
    connect: ConnectRequest => ConnectResponse,
    shutdown: ShutdownRequest => Empty,
}
