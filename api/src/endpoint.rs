//! Every call that the daemon answers, in one table. The daemon registers its routes by a `match` on [`Endpoint`], the
//! document is made of it and the client asks it for paths: none of them can drift from the others.

use std::fmt;

use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointReport, Checkpoints, Deleted, RunReport, StandbyReport};
use crate::container::{Container, Containers};
use crate::event::Event;
use crate::migration::{MigrationReport, Migrations};
use crate::operation::{Cancelling, Done, Health, Operation, Operations};
use crate::request::{CheckpointRequest, MigrateRequest, RestoreRequest, RunRequest, StandbyRequest};
use crate::start::{StartOptions, StartOptionsShown};

/// What somebody may do. Each may also do what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Read,
    /// Checkpoint, restore, start, put into standby, delete checkpoints.
    Checkpoint,
    /// Move applications to other hosts.
    Migrate,
    /// Everything: root on the unix socket.
    Admin,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Changes nothing.
    Get,
    /// Does something.
    Post,
    /// Takes something away.
    Delete,
}

impl Method {
    /// As it stands in a request.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Starts an application.
    Run,
    /// Makes a checkpoint.
    Checkpoint,
    /// Ends an application and keeps its container.
    Standby,
    /// Restores a checkpoint.
    Restore,
    /// Moves an application to another host.
    Migrate,
    /// All containers.
    Containers,
    /// One container.
    Container,
    /// What was said about a container's next starts.
    StartOptions,
    /// Says it anew.
    SetStartOptions,
    /// Takes it back.
    ClearStartOptions,
    /// All checkpoints that the daemon keeps.
    Checkpoints,
    /// One of them.
    GetCheckpoint,
    /// Takes one away.
    DeleteCheckpoint,
    /// The operations that run, and the latest that ended.
    Operations,
    /// One of them.
    Operation,
    /// Cancels one.
    Cancel,
    /// The migrations that run, and the latest that ended.
    Migrations,
    /// One of them.
    Migration,
    /// What happens.
    Events,
    /// Counters, for Prometheus.
    Metrics,
    /// Whether the daemon is well.
    Health,
    /// The document that describes all of this.
    OpenApi,
}

/// How a schema is made.
pub(crate) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// What is answered when all went well.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// One JSON document.
    Json(MakeSchema),
    /// JSON that is described elsewhere.
    AnyJson,
    /// Text.
    Text,
    /// Server-sent events, each with one JSON document.
    Events(MakeSchema),
}

/// What is sent along.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body {
    pub(crate) schema: MakeSchema,
    /// Whether there is anything that must be said.
    pub(crate) required: bool,
}

/// A query parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// What the table says of a call.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{name}` where a value stands.
    pub path: &'static str,
    /// Who may.
    pub role: Role,
    /// Whether it is an operation: answered after its end, listed among the operations, run once per idempotency key.
    pub operation: bool,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// What may follow the path.
    pub query: &'static [Query],
    pub(crate) request: Option<Body>,
    pub(crate) answer: Answer,
}

const NAMESPACE: Query =
    Query { name: "namespace", meaning: "the container's namespace, where its id or name is not unique" };
const OF_KEY: Query = Query { name: "key", meaning: "only what was asked with this idempotency key" };
const LIMIT: Query = Query { name: "limit", meaning: "at most so many, the latest; 100 when left out" };

impl Endpoint {
    /// All of them, in the order of the document.
    pub const ALL: [Self; 22] = [
        Self::Run,
        Self::Checkpoint,
        Self::Standby,
        Self::Restore,
        Self::Migrate,
        Self::Containers,
        Self::Container,
        Self::StartOptions,
        Self::SetStartOptions,
        Self::ClearStartOptions,
        Self::Checkpoints,
        Self::GetCheckpoint,
        Self::DeleteCheckpoint,
        Self::Operations,
        Self::Operation,
        Self::Cancel,
        Self::Migrations,
        Self::Migration,
        Self::Events,
        Self::Metrics,
        Self::Health,
        Self::OpenApi,
    ];

    /// What the table says of it.
    #[must_use]
    pub fn route(self) -> Route {
        match self {
            Self::Run => operation::<RunRequest, RunReport>(
                "/v1/containers/{id}/run",
                Role::Checkpoint,
                "Start the application of a container in standby, from scratch or from a checkpoint",
            ),
            Self::Checkpoint => operation::<CheckpointRequest, CheckpointReport>(
                "/v1/containers/{id}/checkpoint",
                Role::Checkpoint,
                "Save the application's state among the daemon's checkpoints",
            ),
            Self::Standby => operation::<StandbyRequest, StandbyReport>(
                "/v1/containers/{id}/standby",
                Role::Checkpoint,
                "End the application and keep its container up",
            ),
            Self::Restore => operation::<RestoreRequest, RunReport>(
                "/v1/containers/{id}/restore",
                Role::Checkpoint,
                "Bring a saved application up in a container in standby",
            ),
            Self::Migrate => operation::<MigrateRequest, MigrationReport>(
                "/v1/containers/{id}/migrate",
                Role::Migrate,
                "Move the running application into a container of another host",
            ),
            Self::Containers => get::<Containers>("/v1/containers", "All containers of this node"),
            Self::Container => Route {
                query: &[NAMESPACE],
                ..get::<Container>("/v1/containers/{id}", "One container, by its id or name")
            },
            Self::StartOptions => start_options(
                Method::Get,
                Role::Read,
                "What was said about a container's next starts, without the values of variables",
            ),
            Self::SetStartOptions => Route {
                request: Some(Body { schema: schema::<StartOptions>, required: false }),
                ..start_options(Method::Post, Role::Admin, "Say how the application comes up the next time")
            },
            Self::ClearStartOptions => start_options(
                Method::Delete,
                Role::Admin,
                "Leave it to the container's creator again how the application comes up",
            ),
            Self::Checkpoints => {
                get::<Checkpoints>("/v1/checkpoints", "The checkpoints that the daemon keeps")
            }
            Self::GetCheckpoint => {
                get::<crate::checkpoint::Checkpoint>("/v1/checkpoints/{name}", "One checkpoint")
            }
            Self::DeleteCheckpoint => Route {
                method: Method::Delete,
                role: Role::Checkpoint,
                ..get::<Deleted>("/v1/checkpoints/{name}", "Take a checkpoint away")
            },
            Self::Operations => Route {
                query: &[OF_KEY, LIMIT],
                ..get::<Operations>("/v1/operations", "The operations that run, and the latest that ended")
            },
            Self::Operation => get::<Operation>("/v1/operations/{id}", "One operation"),
            Self::Cancel => Route {
                method: Method::Post,
                role: Role::Checkpoint,
                ..get::<Cancelling>(
                    "/v1/operations/{id}/cancel",
                    "Ask for an operation's end before it is done; needs the role of that operation as well",
                )
            },
            Self::Migrations => Route {
                query: &[LIMIT],
                ..get::<Migrations>("/v1/migrations", "The migrations that run, and the latest that ended")
            },
            Self::Migration => get::<MigrationReport>("/v1/migrations/{id}", "One migration"),
            Self::Events => Route {
                query: &[Query { name: "operation", meaning: "only what is of this operation" }, OF_KEY],
                answer: Answer::Events(schema::<Event>),
                ..get::<Event>("/v1/events", "What happens, from now on, as server-sent events")
            },
            Self::Metrics => Route {
                answer: Answer::Text,
                ..get::<Health>("/metrics", "Counters, as Prometheus reads them")
            },
            Self::Health => get::<Health>("/healthz", "Whether operations are taken"),
            Self::OpenApi => {
                Route { answer: Answer::AnyJson, ..get::<Health>("/v1/openapi.json", "This document") }
            }
        }
    }

    /// Its path with the values in place of `{...}`, in order, encoded: a container may be called
    /// `NAMESPACE/POD/CONTAINER`.
    #[must_use]
    pub fn path(self, values: &[&str]) -> String {
        let mut values = values.iter();
        let parts = self.route().path.split('/').map(|part| {
            if !part.starts_with('{') {
                return part.to_owned();
            }
            encode(values.next().unwrap_or(&""))
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// Its name in the document.
    #[must_use]
    pub fn id(self) -> String {
        let name = format!("{self:?}");
        name[..1].to_lowercase() + &name[1..]
    }
}

/// A value as part of a path or a query.
pub(crate) fn encode(value: &str) -> String {
    utf8_percent_encode(value, IN_PATH).to_string()
}

/// What stands for itself in a path or a query.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn get<A: JsonSchema>(path: &'static str, summary: &'static str) -> Route {
    Route {
        method: Method::Get,
        path,
        role: Role::Read,
        operation: false,
        summary,
        query: &[],
        request: None,
        answer: Answer::Json(schema::<A>),
    }
}

fn start_options(method: Method, role: Role, summary: &'static str) -> Route {
    let path = "/v1/containers/{id}/start-options";
    Route { method, role, query: &[NAMESPACE], ..get::<StartOptionsShown>(path, summary) }
}

fn operation<Q: JsonSchema + DeserializeOwned, R: JsonSchema>(
    path: &'static str,
    role: Role,
    summary: &'static str,
) -> Route {
    Route {
        method: Method::Post,
        path,
        role,
        operation: true,
        summary,
        query: &[NAMESPACE],
        request: Some(Body { schema: schema::<Q>, required: serde_json::from_str::<Q>("{}").is_err() }),
        answer: Answer::Json(schema::<Done<R>>),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_calls_share_method_and_path() {
        let all: BTreeSet<_> =
            Endpoint::ALL.iter().map(|e| (e.route().method.name(), e.route().path)).collect();
        assert_eq!(all.len(), Endpoint::ALL.len());
    }

    #[test]
    fn who_only_reads_changes_nothing() {
        for endpoint in Endpoint::ALL {
            let route = endpoint.route();
            assert_eq!(route.role == Role::Read, route.method == Method::Get, "{endpoint:?}");
        }
        assert!(
            Role::Read < Role::Checkpoint && Role::Checkpoint < Role::Migrate && Role::Migrate < Role::Admin
        );
    }

    #[test]
    fn a_name_with_slashes_is_one_part_of_a_path() {
        assert_eq!(
            Endpoint::Migrate.path(&["default/web/../x y"]),
            "/v1/containers/default%2Fweb%2F..%2Fx%20y/migrate"
        );
        assert_eq!(Endpoint::Containers.path(&[]), "/v1/containers");
        assert_eq!(Endpoint::GetCheckpoint.id(), "getCheckpoint");
    }
}
