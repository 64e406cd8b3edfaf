//! What there is.

use std::sync::Arc;

use axum::response::Response;
use fastmig_api::checkpoint::Checkpoints;
use fastmig_api::container::{Container, Containers};
use fastmig_api::migration::Migrations;
use fastmig_api::openapi::openapi;
use fastmig_api::operation::{Health, Operations};
use fastmig_api::{Code, ErrorInfo};

use super::answer::{json, text};
use super::call::Call;
use crate::daemon::Daemon;
use crate::failure::of_engine;
use crate::inventory;
use crate::task::blocking;

pub(super) async fn containers(daemon: &Arc<Daemon>) -> Result<Response, ErrorInfo> {
    let mut containers = all(daemon).await?;
    containers.iter_mut().for_each(|container| add_operation(daemon, container));
    Ok(json(&Containers { containers }))
}

pub(super) async fn container(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    let config = daemon.config.clone();
    let find = move || {
        let key = inventory::find(&config, call.name(), call.query("namespace"))?;
        inventory::one(&config, &key)
    };
    let mut container = blocking(find).await?.map_err(|e| of_engine(&e))?;
    add_operation(daemon, &mut container);
    Ok(json(&container))
}

async fn all(daemon: &Arc<Daemon>) -> Result<Vec<Container>, ErrorInfo> {
    let config = daemon.config.clone();
    blocking(move || inventory::all(&config)).await?.map_err(|e| of_engine(&e))
}

fn add_operation(daemon: &Daemon, container: &mut Container) {
    container.operation = daemon.operations.at_work_on(&container.id).map(|operation| operation.id);
    container.migrating = daemon.migrations.of(&container.id);
}

pub(super) async fn checkpoints(daemon: &Arc<Daemon>) -> Result<Response, ErrorInfo> {
    let place = daemon.checkpoints.clone();
    let checkpoints = blocking(move || place.list()).await??;
    Ok(json(&Checkpoints { checkpoints }))
}

pub(super) async fn checkpoint(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    let place = daemon.checkpoints.clone();
    let checkpoint = blocking(move || place.describe(call.name())).await??;
    Ok(json(&checkpoint))
}

pub(super) fn operations(daemon: &Daemon, call: &Call) -> Result<Response, ErrorInfo> {
    let operations = daemon.operations.list(call.query("key"), call.limit()?);
    Ok(json(&Operations { operations }))
}

pub(super) fn operation(daemon: &Daemon, call: &Call) -> Result<Response, ErrorInfo> {
    let found = daemon.operations.get(call.name());
    found.map(|operation| json(&operation)).ok_or_else(|| none("operation", call))
}

pub(super) fn migrations(daemon: &Daemon, call: &Call) -> Result<Response, ErrorInfo> {
    let mut migrations = daemon.migrations.history();
    let too_many = migrations.len().saturating_sub(call.limit()?);
    migrations.drain(..too_many);
    Ok(json(&Migrations { migrations }))
}

pub(super) fn migration(daemon: &Daemon, call: &Call) -> Result<Response, ErrorInfo> {
    let mut history = daemon.migrations.history().into_iter();
    let found = history.find(|migration| migration.id == call.name());
    found.map(|migration| json(&migration)).ok_or_else(|| none("migration", call))
}

pub(super) async fn metrics(daemon: &Arc<Daemon>) -> Result<Response, ErrorInfo> {
    let containers = inventory::count(&all(daemon).await?);
    let body = daemon.metrics.text(daemon.operations.running(), &containers);
    Ok(text("application/openmetrics-text; version=1.0.0; charset=utf-8", body))
}

pub(super) fn health(daemon: &Daemon) -> Response {
    let problems = daemon.problems();
    json(&Health {
        ok: problems.is_empty(),
        version: env!("CARGO_PKG_VERSION").into(),
        host: daemon.host.clone(),
        problems,
    })
}

pub(super) fn document() -> Response {
    json(&openapi())
}

fn none(what: &str, call: &Call) -> ErrorInfo {
    ErrorInfo::new(Code::NotFound, format!("there is no {what} {:?}", call.name()))
        .with_remedy("old ones are forgotten; the list shows those that are known")
}
