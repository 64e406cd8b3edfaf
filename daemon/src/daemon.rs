//! What all parts of the daemon share.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fastmig_engine::Config;
use tokio::sync::watch;

use crate::checkpoints::Checkpoints;
use crate::events::Bus;
use crate::metrics::Metrics;
use crate::migrations::Migrations;
use crate::operations::Registry;
use crate::pki::identity::Identity;
use crate::pki::peers::Peers;
use crate::pki::{name, Place};
use crate::start::StartError;

/// The daemon of this host.
#[derive(Debug)]
pub struct Daemon {
    /// The host's settings.
    pub config: Arc<Config>,
    /// What this host is called among its peers.
    pub host: String,
    /// Its certificate, if it has one.
    pub identity: Option<Arc<Identity>>,
    /// The other hosts.
    pub peers: Peers,
    /// What is done and was done.
    pub operations: Arc<Registry>,
    /// What happens.
    pub bus: Arc<Bus>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Checkpoints by name.
    pub checkpoints: Checkpoints,
    /// Applications that leave and arrive.
    pub migrations: Migrations,
    problems: Mutex<Vec<String>>,
    stop: watch::Sender<bool>,
}

impl Daemon {
    /// Opens what is on disk.
    ///
    /// # Errors
    /// When the state directory or the certificates cannot be read.
    pub fn open(config: Arc<Config>) -> Result<Arc<Self>, StartError> {
        let settings = &config.daemon;
        let place = Place::below(&settings.state_dir);
        let identity = Identity::load(settings, &place)?.map(Arc::new);
        let (bus, metrics) = (Arc::<Bus>::default(), Arc::<Metrics>::default());
        let directory = settings.state_dir.join("operations");
        let operations = Registry::open(&directory, settings.max_operations, bus.clone(), metrics.clone())
            .map_err(StartError::io("open", Path::new(&directory)))?;
        let host = identity.as_ref().map_or_else(name::of_this_host, |identity| identity.name.clone());
        let peers = Peers::open(&place);
        let migrations = Migrations::open(&config, &host, identity.as_deref(), peers.clone(), bus.clone())?;
        Ok(Arc::new(Self {
            host,
            identity,
            peers,
            operations,
            bus,
            metrics,
            checkpoints: Checkpoints::at(&settings.checkpoint_dir),
            migrations,
            problems: Mutex::default(),
            stop: watch::Sender::new(false),
            config,
        }))
    }

    /// What is wrong here.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        problems.extend(self.migrations.problems());
        if *self.stop.borrow() {
            problems.push("the daemon is about to stop".into());
        }
        problems
    }

    /// What CRIU and the kernel lack here.
    pub fn found(&self, problems: Vec<String>) {
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Ends streams and listeners, and begins no operation any more.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.operations.stop();
        self.migrations.stop();
    }

    /// Waits for [`Daemon::stop`].
    pub fn stopping(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // Without a sender there is nobody left to wait for.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }
}
