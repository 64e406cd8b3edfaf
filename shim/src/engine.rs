//! The engine's blocking calls, each on a thread for such, and its failures in the stock shim's words.

use std::sync::Arc;

use fastmig_engine::{checkpoint, Config, Container, CreateRequest, ExecRequest, Kind};

use crate::error::Error;

/// A container as the engine has it. It holds the mechanism; the shim only asks.
#[derive(Debug, Clone)]
pub(crate) struct Engine(Arc<Container>);

impl Engine {
    pub(crate) async fn create(config: Arc<Config>, request: CreateRequest) -> Result<Self, Error> {
        tokio::task::spawn_blocking(move || Container::create(config, request))
            .await?
            .map(|container| Self(Arc::new(container)))
            .map_err(Error::engine("OCI runtime create failed"))
    }

    /// The container's PID 1.
    pub(crate) fn pid(&self) -> i32 {
        self.0.pid()
    }

    pub(crate) async fn start(&self) -> Result<(), Error> {
        self.call("OCI runtime start failed", Container::start).await
    }

    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<i32, Error> {
        self.call("OCI runtime exec failed", |container| container.exec(request)).await
    }

    pub(crate) async fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        let action = "unknown error after kill";
        match self.call(action, move |container| container.kill(signal, all)).await {
            Err(Error::Engine { source, .. }) if source.kind() == Kind::NotFound => Err(Error::Finished),
            result => result,
        }
    }

    pub(crate) async fn pause(&self) -> Result<(), Error> {
        self.call("OCI runtime pause failed", Container::pause).await
    }

    pub(crate) async fn resume(&self) -> Result<(), Error> {
        self.call("OCI runtime resume failed", Container::resume).await
    }

    pub(crate) async fn update(&self, resources: Vec<u8>) -> Result<(), Error> {
        self.call("OCI runtime update failed", move |container| container.update(&resources)).await
    }

    pub(crate) async fn pids(&self) -> Result<Vec<i32>, Error> {
        self.call("OCI runtime ps failed", Container::pids).await
    }

    pub(crate) async fn checkpoint(&self, request: checkpoint::Request) -> Result<checkpoint::Report, Error> {
        self.call("OCI runtime checkpoint failed", move |container| {
            fastmig_hooks::checkpoint(container, &request)
        })
        .await
    }

    pub(crate) async fn delete(&self, force: bool) -> Result<(), Error> {
        self.call("failed to delete task", move |container| container.delete(force)).await
    }

    async fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Container) -> Result<T, fastmig_engine::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let container = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&container)).await?.map_err(Error::engine(action))
    }
}
