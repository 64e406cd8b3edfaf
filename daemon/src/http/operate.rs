//! What changes something: each an operation of the registry, which goes on whoever stops waiting for it.

use std::sync::Arc;

use axum::response::Response;
use fastmig_api::checkpoint::Deleted;
use fastmig_api::operation::{Cancelling, Kind};
use fastmig_api::request::{
    self, Checked, CheckpointRequest, MigrateRequest, RestoreRequest, RunRequest, StandbyRequest,
};
use fastmig_api::{Code, Endpoint, ErrorInfo};
use fastmig_engine::{Container, Key};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::json;
use super::call::Call;
use crate::daemon::Daemon;
use crate::failure::of_engine;
use crate::operations::{Asked, Job};
use crate::task::blocking;
use crate::{inventory, work};

pub(super) async fn run(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    on_container(daemon, call, Kind::Run, |daemon, container, request: &RunRequest, job| {
        work::run(daemon, container, request, job)
    })
    .await
}

pub(super) async fn checkpoint(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    on_container(daemon, call, Kind::Checkpoint, |daemon, container, request: &CheckpointRequest, job| {
        work::checkpoint(daemon, container, request, job)
    })
    .await
}

pub(super) async fn standby(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    on_container(daemon, call, Kind::Standby, |_, container, _: &StandbyRequest, _| work::standby(container))
        .await
}

pub(super) async fn restore(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    on_container(daemon, call, Kind::Restore, |daemon, container, request: &RestoreRequest, job| {
        work::restore(daemon, container, request, job)
    })
    .await
}

pub(super) async fn migrate(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    on_container(daemon, call, Kind::Migrate, |daemon, container, request: &MigrateRequest, job| {
        daemon.migrations.depart(container, request, job)
    })
    .await
}

/// What each call does first: reads the request, looks whether it was asked before, finds the container.
async fn on_container<Q, W>(
    daemon: &Arc<Daemon>,
    call: Call,
    kind: Kind,
    work: W,
) -> Result<Response, ErrorInfo>
where
    Q: DeserializeOwned + Checked + Send + 'static,
    W: FnOnce(&Arc<Daemon>, &Container, &Q, &Job) -> Result<Value, ErrorInfo> + Send + 'static,
{
    let request: Q = request::parse(&call.body)?;
    if let Some(answer) = daemon.operations.known(call.key.as_deref(), &call.fingerprint).await {
        return Ok(json(&answer?));
    }
    let (config, name) = (daemon.config.clone(), call.name().to_owned());
    let namespace = call.query("namespace").map(str::to_owned);
    let find = move || -> Result<(Key, Container), fastmig_engine::Error> {
        let key = inventory::find(&config, &name, namespace.as_deref())?;
        let container = Container::open(config, &key)?;
        Ok((key, container))
    };
    let (key, container) = blocking(find).await?.map_err(|e| of_engine(&e))?;
    let asked = Asked {
        kind,
        container: key.id().to_owned(),
        key: call.key,
        fingerprint: call.fingerprint,
        caller: call.caller.name,
    };
    let shared = daemon.clone();
    let answer =
        daemon.operations.perform(asked, move |job| work(&shared, &container, &request, job)).await?;
    Ok(json(&answer))
}

pub(super) async fn delete_checkpoint(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    let place = daemon.checkpoints.clone();
    let name = call.name().to_owned();
    blocking(move || place.delete(&name)).await??;
    tracing::info!(checkpoint = call.name(), by = call.caller.name, "a checkpoint was taken away");
    Ok(json(&Deleted { name: call.name().to_owned() }))
}

pub(super) fn cancel(daemon: &Arc<Daemon>, call: &Call) -> Result<Response, ErrorInfo> {
    let id = call.name();
    let operation = daemon
        .operations
        .get(id)
        .ok_or_else(|| ErrorInfo::new(Code::NotFound, format!("there is no operation {id:?}")))?;
    call.require(endpoint_of(operation.kind).route().role)?;
    Ok(json(&Cancelling { operation: operation.id, accepted: daemon.operations.cancel(id) }))
}

fn endpoint_of(kind: Kind) -> Endpoint {
    match kind {
        Kind::Run => Endpoint::Run,
        Kind::Checkpoint => Endpoint::Checkpoint,
        Kind::Standby => Endpoint::Standby,
        Kind::Restore => Endpoint::Restore,
        Kind::Migrate | Kind::Receive => Endpoint::Migrate,
    }
}
