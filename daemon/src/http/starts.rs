//! How a container's application comes up the next time.

use std::sync::Arc;

use axum::response::Response;
use fastmig_api::start::{StartMode, StartOptions, StartOptionsShown};
use fastmig_api::{request, ErrorInfo};
use fastmig_engine::start_file::{self, StartAs, StartFile};
use fastmig_engine::{Config, Error, Key};

use super::answer::json;
use super::call::Call;
use crate::daemon::Daemon;
use crate::failure::of_engine;
use crate::inventory;
use crate::task::blocking;

pub(super) async fn get(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    on_file(daemon, call, |_, _| Ok(())).await
}

pub(super) async fn set(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    let options: StartOptions = request::parse(&call.body)?;
    on_file(daemon, call, move |config, key| start_file::store(config, key, &file(options))).await
}

pub(super) async fn clear(daemon: &Arc<Daemon>, call: Call) -> Result<Response, ErrorInfo> {
    on_file(daemon, call, |config, key| start_file::clear(config, key).map(drop)).await
}

/// Does `work`, and answers what is said afterwards.
async fn on_file(
    daemon: &Arc<Daemon>,
    call: Call,
    work: impl FnOnce(&Config, &Key) -> Result<(), Error> + Send + 'static,
) -> Result<Response, ErrorInfo> {
    let config = daemon.config.clone();
    let found = move || -> Result<StartOptionsShown, Error> {
        let key = inventory::find(&config, call.name(), call.query("namespace"))?;
        work(&config, &key)?;
        Ok(shown(start_file::load(&config, &key)?))
    };
    let shown = blocking(found).await?.map_err(|e| of_engine(&e))?;
    Ok(json(&shown))
}

fn file(options: StartOptions) -> StartFile {
    StartFile {
        mode: options.mode.map(|mode| match mode {
            StartMode::Run => StartAs::Run,
            StartMode::Restore => StartAs::Restore,
            StartMode::Standby => StartAs::Standby,
        }),
        checkpoint: options.checkpoint,
        arguments: options.arguments,
        unset: options.unset,
        environment: options.environment,
        ..StartFile::default()
    }
}

fn shown(file: Option<StartFile>) -> StartOptionsShown {
    let Some(file) = file else { return StartOptionsShown::default() };
    StartOptionsShown {
        said: true,
        mode: file.mode.map(|mode| match mode {
            StartAs::Run => StartMode::Run,
            StartAs::Restore => StartMode::Restore,
            StartAs::Standby => StartMode::Standby,
        }),
        checkpoint: file.checkpoint,
        arguments: file.arguments.len(),
        unset: file.unset,
        environment: file.environment.into_keys().collect(),
    }
}
