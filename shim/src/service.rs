//! The shim as containerd starts it: one process that serves the tasks of one pod or container.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim::api::DeleteResponse;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, ExitSignal, Flags, Shim, StartOpts};

use crate::context::Context;
use crate::events::Events;
use crate::operations::Operations;
use crate::reaper::Reaper;
use crate::task::{TaskService, Tasks};
use crate::{cleanup, launch};

/// How long the last events may take to reach containerd.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The entry that the shim crate calls.
pub(crate) struct Service {
    namespace: String,
    id: String,
    bundle: String,
    socket: String,
    exit: Arc<ExitSignal>,
    events: OnceLock<Events>,
    operations: Mutex<Option<Operations>>,
}

impl Service {
    fn operations(&self) -> MutexGuard<'_, Option<Operations>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Shim for Service {
    type T = TaskService;

    async fn new(_runtime_id: &str, flags: &Flags, _config: &mut Config) -> Self {
        Self {
            namespace: flags.namespace.clone(),
            id: flags.id.clone(),
            bundle: flags.bundle.clone(),
            socket: flags.socket.clone(),
            exit: Arc::default(),
            events: OnceLock::new(),
            operations: Mutex::default(),
        }
    }

    async fn start_shim(&mut self, options: StartOpts) -> containerd_shim::Result<String> {
        blocking(move || launch::start(&options)).await
    }

    /// Never asked: `main` answers it.
    async fn delete_shim(&mut self) -> containerd_shim::Result<DeleteResponse> {
        let (bundle, namespace, id) = (self.bundle.clone(), self.namespace.clone(), self.id.clone());
        blocking(move || cleanup::delete(&bundle, &namespace, &id)).await
    }

    async fn wait(&mut self) {
        self.exit.wait().await;
        drop(self.operations().take());
        if let Some(events) = self.events.get() {
            events.flush(FLUSH_LIMIT).await;
        }
        // The crate finds the socket by a file in the first container's bundle, which may be gone by now.
        let socket = self.socket.trim_start_matches("unix://");
        if let Err(e) = std::fs::remove_file(Path::new(socket)) {
            log::debug!("could not remove {socket}: {e}");
        }
    }

    async fn create_task_service(&self, publisher: RemotePublisher) -> Self::T {
        // Only its address: see the module on events.
        let events = self.events.get_or_init(|| Events::new(&publisher.address, &self.namespace));
        match Operations::serve(&self.namespace, &self.id).await {
            Ok(operations) => *self.operations() = Some(operations),
            // containerd's own calls work without it.
            Err(error) => log::error!("{}", error.report()),
        }
        let reaper = Arc::new(Reaper::default());
        tokio::spawn(Arc::clone(&reaper).run());
        let context = Context { namespace: self.namespace.clone(), events: events.clone(), reaper };
        TaskService(Arc::new(Tasks::new(Arc::new(context), Arc::clone(&self.exit))))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::error::Error> + Send + 'static,
) -> containerd_shim::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(crate::error::Error::from)
        .and_then(|result| result)
        .map_err(|error| containerd_shim::Error::Other(error.report()))
}
