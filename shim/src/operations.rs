//! The shim's own ttrpc service, `fastmig.v1.Fastmig`: checkpoint, restore, standby, run, status.
//!
//! It listens on a socket of its own, below a directory that only root may enter. It holds no state: each call
//! opens the container anew and asks the engine.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use fastmig_engine::checkpoint::{After, Request as Checkpoint, Tcp};
use fastmig_engine::restore::Request as Restore;
use fastmig_engine::{Config, Container, Key};
use fastmig_shim_api::fastmig::{
    self as messages, CheckpointRequest, CheckpointResponse, ContainerRequest, RestoreRequest,
    RestoreResponse, StatusResponse,
};
use fastmig_shim_api::fastmig_ttrpc::{create_fastmig, Fastmig};
use ttrpc::r#async::{Server, TtrpcContext};

use crate::error::{code_of, Error};

type EngineResult<T> = Result<T, fastmig_engine::Error>;

/// The service, and the socket that goes with it.
pub(crate) struct Operations {
    _server: Server,
    socket: PathBuf,
}

impl Operations {
    /// Serves the containers of `namespace` for the shim `id`.
    pub(crate) async fn serve(namespace: &str, id: &str) -> Result<Self, Error> {
        let config = Config::load().map_err(Error::engine("cannot serve checkpoint and restore"))?;
        let socket = fastmig_shim_api::socket(&config.state_root, namespace, id);
        if let Some(directory) = socket.parent() {
            make_private(directory).map_err(|e| Error::io("make", directory, e))?;
        }
        // One of a shim that was killed.
        remove(&socket);
        let service = Service { config: Arc::new(config), namespace: namespace.into() };
        let failed = |e: ttrpc::Error| Error::io("serve at", &socket, std::io::Error::other(e));
        let address = format!("unix://{}", socket.display());
        let mut server =
            Server::new().bind(&address).map_err(failed)?.register_service(create_fastmig(Arc::new(service)));
        server.start().await.map_err(failed)?;
        Ok(Self { _server: server, socket })
    }
}

impl Drop for Operations {
    fn drop(&mut self) {
        remove(&self.socket);
    }
}

/// Removes the socket of a shim that is gone.
pub(crate) fn forget(config: &Config, namespace: &str, id: &str) {
    remove(&fastmig_shim_api::socket(&config.state_root, namespace, id));
}

fn remove(socket: &Path) {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => log::warn!("could not remove {socket:?}: {e}"),
        _ => {}
    }
}

fn make_private(directory: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

struct Service {
    config: Arc<Config>,
    namespace: String,
}

impl Service {
    /// Does `work` on the container `id`, on a thread where blocking is allowed.
    async fn on<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce(&Container) -> EngineResult<T> + Send + 'static,
    ) -> ttrpc::Result<T> {
        let (config, namespace, id) = (Arc::clone(&self.config), self.namespace.clone(), id.to_owned());
        let whole = move || work(&Container::open(config, &Key::new(&namespace, &id)?)?);
        match tokio::task::spawn_blocking(whole).await {
            Ok(result) => result.map_err(|e| failure(code_of(e.kind()), e.report())),
            Err(e) => Err(failure(ttrpc::Code::INTERNAL, e.to_string())),
        }
    }
}

#[async_trait]
impl Fastmig for Service {
    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: CheckpointRequest,
    ) -> ttrpc::Result<CheckpointResponse> {
        let after = match request.after.enum_value() {
            Ok(messages::After::RUN) => After::Run,
            Ok(messages::After::STANDBY) => After::Standby,
            Ok(messages::After::EXIT) => After::Exit,
            Err(number) => return Err(invalid(format!("unknown value {number} of after"))),
        };
        let mut wanted = Checkpoint::new(absolute(request.path)?, after);
        wanted.tcp = request.tcp_established.then_some(Tcp::Keep);
        wanted.files = request.files;
        let report =
            self.on(&request.id, move |container| fastmig_hooks::checkpoint(container, &wanted)).await?;
        let processes = u32::try_from(report.processes).unwrap_or(u32::MAX);
        let (bytes, frozen_ms) = (report.bytes, report.frozen_ms);
        Ok(CheckpointResponse { bytes, processes, frozen_ms, ..CheckpointResponse::default() })
    }

    async fn restore(&self, _: &TtrpcContext, request: RestoreRequest) -> ttrpc::Result<RestoreResponse> {
        let mut wanted = Restore::new(absolute(request.path)?);
        wanted.tcp = request.tcp_established.then_some(Tcp::Keep);
        let report =
            self.on(&request.id, move |container| fastmig_hooks::restore(container, &wanted)).await?;
        let (application_pid, total_ms) = (report.application_pid, report.total_ms);
        Ok(RestoreResponse { application_pid, total_ms, ..RestoreResponse::default() })
    }

    async fn standby(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<StatusResponse> {
        self.on(&request.id, |container| container.standby().and_then(|()| status(container))).await
    }

    async fn run(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<StatusResponse> {
        self.on(&request.id, |container| container.run().and_then(|()| status(container))).await
    }

    async fn status(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<StatusResponse> {
        self.on(&request.id, status).await
    }
}

fn status(container: &Container) -> EngineResult<StatusResponse> {
    let status = container.status()?;
    Ok(StatusResponse {
        application: status.application.name().into(),
        application_pid: status.application_pid.unwrap_or(0),
        paused: status.paused,
        runs: status.runs,
        last_failure: status.last_failure.map(|failure| failure.reason).unwrap_or_default(),
        ..StatusResponse::default()
    })
}

fn absolute(path: String) -> ttrpc::Result<PathBuf> {
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(invalid(format!("{path:?} is not an absolute path")))
}

fn invalid(reason: String) -> ttrpc::Error {
    failure(ttrpc::Code::INVALID_ARGUMENT, reason)
}

fn failure(code: ttrpc::Code, text: String) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_refused() {
        assert!(absolute("x/y".into()).is_err());
        assert_eq!(absolute("/x".into()).unwrap(), Path::new("/x"));
    }
}
