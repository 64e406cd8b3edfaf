//! The client: blocking, one connection per call, every wait limited. No threads and no runtime of its own, so that a
//! command line that holds it starts as fast as one that does not.

mod error;
mod events;
mod unix;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::Serialize;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use crate::checkpoint::{CheckpointReport, Checkpoints, Deleted, RunReport, StandbyReport};
use crate::container::{Container, Containers};
use crate::endpoint::Endpoint;
use crate::error::ErrorBody;
use crate::migration::{MigrationReport, Migrations};
use crate::operation::{Cancelling, Done, Health, Operation, Operations};
use crate::request::{
    CheckpointRequest, MigrateRequest, RestoreRequest, RunRequest, StandbyRequest, MAX_SECONDS,
};
use crate::IDEMPOTENCY_KEY;

pub use error::ClientError;
pub use events::Events;

/// The limit for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The limit for an answer that nothing must be done for.
const LOOK: Duration = Duration::from_secs(30);

/// The limit for an operation, whose own limits the daemon minds: only a daemon that hangs comes to it.
const OPERATION: Duration = Duration::from_secs(MAX_SECONDS + 600);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// A daemon that can be asked.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    /// As people know it.
    place: PathBuf,
    /// Where containers are looked for; everywhere when left open.
    namespace: Option<String>,
}

impl Client {
    /// This host's daemon, at its usual socket.
    #[must_use]
    pub fn local() -> Self {
        Self::unix(Path::new(crate::SOCKET))
    }

    /// A daemon that listens on a unix socket. Nothing is opened before the first call.
    #[must_use]
    pub fn unix(socket: &Path) -> Self {
        let config = configuration().build();
        let agent = Agent::with_parts(config, unix::Connector::new(socket), unix::NoResolver);
        Self { agent, base: "http://fastmigd".into(), place: socket.into(), namespace: None }
    }

    /// Looks for containers in this namespace only.
    #[must_use]
    pub fn within(mut self, namespace: Option<String>) -> Self {
        self.namespace = namespace;
        self
    }

    /// Whether the daemon is well.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn health(&self) -> Result<Health, ClientError> {
        self.look(Endpoint::Health, &[], &[])
    }

    /// All containers of the daemon's host.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn containers(&self) -> Result<Vec<Container>, ClientError> {
        self.look::<Containers>(Endpoint::Containers, &[], &[]).map(|all| all.containers)
    }

    /// One container, by its id or name.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub fn container(&self, id: &str) -> Result<Container, ClientError> {
        self.look(Endpoint::Container, &[id], &self.where_to_look())
    }

    /// Starts the application of a container in standby.
    ///
    /// # Errors
    /// When it was not started, for the reason that the daemon gives, or the daemon cannot be asked.
    pub fn run(
        &self,
        id: &str,
        request: &RunRequest,
        key: Option<&str>,
    ) -> Result<Done<RunReport>, ClientError> {
        self.operate(Endpoint::Run, id, request, key)
    }

    /// Makes a checkpoint among the daemon's.
    ///
    /// # Errors
    /// When none was made, for the reason that the daemon gives, or the daemon cannot be asked.
    pub fn checkpoint(
        &self,
        id: &str,
        request: &CheckpointRequest,
        key: Option<&str>,
    ) -> Result<Done<CheckpointReport>, ClientError> {
        self.operate(Endpoint::Checkpoint, id, request, key)
    }

    /// Ends an application and keeps its container.
    ///
    /// # Errors
    /// When it was not ended, for the reason that the daemon gives, or the daemon cannot be asked.
    pub fn standby(&self, id: &str, key: Option<&str>) -> Result<Done<StandbyReport>, ClientError> {
        self.operate(Endpoint::Standby, id, &StandbyRequest {}, key)
    }

    /// Restores one of the daemon's checkpoints into a container in standby.
    ///
    /// # Errors
    /// When it was not restored, for the reason that the daemon gives, or the daemon cannot be asked.
    pub fn restore(
        &self,
        id: &str,
        request: &RestoreRequest,
        key: Option<&str>,
    ) -> Result<Done<RunReport>, ClientError> {
        self.operate(Endpoint::Restore, id, request, key)
    }

    /// Moves an application to another host. Returns when it lives there.
    ///
    /// # Errors
    /// When it did not move, for the reason that the daemon gives, or the daemon cannot be asked.
    pub fn migrate(
        &self,
        id: &str,
        request: &MigrateRequest,
        key: Option<&str>,
    ) -> Result<Done<MigrationReport>, ClientError> {
        self.operate(Endpoint::Migrate, id, request, key)
    }

    /// The checkpoints that the daemon keeps.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn checkpoints(&self) -> Result<Checkpoints, ClientError> {
        self.look(Endpoint::Checkpoints, &[], &[])
    }

    /// Takes one of them away.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub fn delete_checkpoint(&self, name: &str) -> Result<Deleted, ClientError> {
        self.look(Endpoint::DeleteCheckpoint, &[name], &[])
    }

    /// The operations that run and the latest that ended, or those that were asked for with `key`.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub fn operations(&self, key: Option<&str>) -> Result<Operations, ClientError> {
        let query: Vec<_> = key.map(|key| ("key", key)).into_iter().collect();
        self.look(Endpoint::Operations, &[], &query)
    }

    /// One operation.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub fn operation(&self, id: &str) -> Result<Operation, ClientError> {
        self.look(Endpoint::Operation, &[id], &[])
    }

    /// Asks for an operation's end before it is done. What became of it is what the operation itself answers.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub fn cancel(&self, id: &str) -> Result<Cancelling, ClientError> {
        self.look(Endpoint::Cancel, &[id], &[])
    }

    /// The migrations that run and the latest `limit` that ended.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub fn migrations(&self, limit: usize) -> Result<Vec<MigrationReport>, ClientError> {
        let all = self.look::<Migrations>(Endpoint::Migrations, &[], &[("limit", &limit.to_string())])?;
        Ok(all.migrations)
    }

    /// What happens from now on: all of it, or what is of the operation asked for with `key`. Returns when the daemon
    /// has begun to listen for it, so that nothing is missed of what is asked for afterwards.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub fn events(&self, key: Option<&str>) -> Result<Events, ClientError> {
        let query: Vec<_> = key.map(|key| ("key", key)).into_iter().collect();
        let request = self.request(Endpoint::Events, &[], &query).body(()).map_err(|e| self.unsendable(e))?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_recv_response(Some(LOOK))
            .timeout_per_read(Some(events::SILENCE))
            .build();
        let response = self.agent.run(request).map_err(|e| self.failure(Endpoint::Events, LOOK, e))?;
        if response.status().is_success() {
            return Ok(Events::new(response.into_body()));
        }
        Err(self.refusal(Endpoint::Events, response))
    }

    /// A call that is answered at once.
    fn look<A: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        values: &[&str],
        query: &[(&str, &str)],
    ) -> Result<A, ClientError> {
        let request = self.request(endpoint, values, query).body(()).map_err(|e| self.unsendable(e))?;
        let request = self.agent.configure_request(request).timeout_global(Some(LOOK)).build();
        let response = self.agent.run(request).map_err(|e| self.failure(endpoint, LOOK, e))?;
        self.answer(endpoint, response)
    }

    /// A call that is answered after the operation has ended.
    fn operate<Q: Serialize, A: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        id: &str,
        request: &Q,
        key: Option<&str>,
    ) -> Result<A, ClientError> {
        let body = serde_json::to_vec(request)
            .map_err(|e| ClientError::Unsendable { place: self.place.clone(), reason: e.to_string() })?;
        let mut request =
            self.request(endpoint, &[id], &self.where_to_look()).header("Content-Type", "application/json");
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let request = request.body(body).map_err(|e| self.unsendable(e))?;
        let request = self.agent.configure_request(request).timeout_global(Some(OPERATION)).build();
        let response = self.agent.run(request).map_err(|e| self.failure(endpoint, OPERATION, e))?;
        self.answer(endpoint, response)
    }

    fn where_to_look(&self) -> Vec<(&str, &str)> {
        self.namespace.as_deref().map(|namespace| ("namespace", namespace)).into_iter().collect()
    }

    fn request(
        &self,
        endpoint: Endpoint,
        values: &[&str],
        query: &[(&str, &str)],
    ) -> ureq::http::request::Builder {
        let path = endpoint.path(values);
        let query: Vec<_> =
            query.iter().map(|(name, value)| format!("{name}={}", crate::endpoint::encode(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        Request::builder().method(endpoint.route().method.name()).uri(format!(
            "{}{path}{mark}{}",
            self.base,
            query.join("&")
        ))
    }

    fn answer<A: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        mut response: Response<Body>,
    ) -> Result<A, ClientError> {
        if !response.status().is_success() {
            return Err(self.refusal(endpoint, response));
        }
        let body = self.body(endpoint, &mut response)?;
        serde_json::from_slice(&body).map_err(|e| ClientError::NotUnderstood {
            call: endpoint.id(),
            place: self.place.clone(),
            reason: e.to_string(),
        })
    }

    /// The error in an answer that is none of success.
    fn refusal(&self, endpoint: Endpoint, mut response: Response<Body>) -> ClientError {
        let body = match self.body(endpoint, &mut response) {
            Ok(body) => body,
            Err(e) => return e,
        };
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => ClientError::Refused(Box::new(body.error)),
            Err(_) => ClientError::NotUnderstood {
                call: endpoint.id(),
                place: self.place.clone(),
                reason: format!("status {} without a reason", response.status()),
            },
        }
    }

    fn body(&self, endpoint: Endpoint, response: &mut Response<Body>) -> Result<Vec<u8>, ClientError> {
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        body.read_to_vec().map_err(|e| self.failure(endpoint, OPERATION, e))
    }

    fn failure(&self, endpoint: Endpoint, limit: Duration, error: ureq::Error) -> ClientError {
        ClientError::of(&self.place, endpoint, limit, error)
    }

    fn unsendable(&self, error: ureq::http::Error) -> ClientError {
        ClientError::Unsendable { place: self.place.clone(), reason: error.to_string() }
    }
}

/// What holds for every call: no proxy, no redirect, no connection kept, failures told by the body.
fn configuration() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(concat!("fastmig/", env!("CARGO_PKG_VERSION")))
        .accept("application/json, text/event-stream")
}

#[cfg(test)]
mod tests;
