//! A client of a shim's Task service, for what `ctr` does not offer.

use anyhow::{Context, Result};
use containerd_shim::protos::api::{CheckpointTaskRequest, UpdateTaskRequest};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::shim_sync::{Client, TaskClient};
use containerd_shim::protos::ttrpc::context::with_duration;

use super::stage::{Task, SOON};

/// The Task service of the shim that serves `task`, reached through its host's root directory.
fn connect(task: &Task<'_>) -> Result<TaskClient> {
    let file = format!("/run/containerd/io.containerd.runtime.v2.task/default/{}/address", task.id);
    let address = String::from_utf8(task.host.read_file(&file)?)?;
    let socket = address.trim().strip_prefix("unix://").context("a shim without a unix socket")?;
    let outside = task.host.outside(socket);
    let client = Client::connect(&format!("unix://{}", outside.display()))
        .with_context(|| format!("cannot connect to {}", outside.display()))?;
    Ok(TaskClient::new(client))
}

/// Changes a container's limits; `resources` is the JSON of the OCI spec.
pub(super) fn update(task: &Task<'_>, resources: &str) -> Result<()> {
    let any = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: resources.into(),
        ..Any::default()
    };
    let request = UpdateTaskRequest {
        id: task.id.clone(),
        resources: MessageField::some(any),
        ..UpdateTaskRequest::default()
    };
    connect(task)?.update(with_duration(SOON), &request).context("update").map(drop)
}

/// Asks for a checkpoint as containerd would, with the default options.
pub(super) fn checkpoint(task: &Task<'_>, path: &str) -> Result<()> {
    let request =
        CheckpointTaskRequest { id: task.id.clone(), path: path.into(), ..CheckpointTaskRequest::default() };
    connect(task)?.checkpoint(with_duration(SOON), &request).context("checkpoint").map(drop)
}
