//! What `fastmig` and `fastmigd` say to each other over HTTP: routes, requests, answers, events, and the client.
//!
//! The files, in the order in which a call meets them:
//!
//! | file | what it is |
//! |---|---|
//! | [`endpoint`] | every call: method, path, the role that it needs. The daemon registers from it, the document is made of it |
//! | [`request`] | what can be asked of a container |
//! | [`operation`] | what became of it: one operation, its phases, its times |
//! | [`container`], [`checkpoint`], [`migration`] | what there is, and the reports |
//! | [`resources`] | what an operation takes of its host |
//! | [`start`] | how a container starts the next time |
//! | [`policy`] | what was decided about an application that has ended |
//! | [`event`] | what happens meanwhile, as server-sent events |
//! | [`error`] | why not, and what would make it possible |
//! | [`openapi`] | all of it as an OpenAPI 3.1 document |
//! | [`client`] | the blocking client |

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod client;
pub mod container;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod migration;
pub mod openapi;
pub mod operation;
pub mod policy;
pub mod request;
pub mod resources;
pub mod start;

pub use client::Client;
pub use endpoint::{Endpoint, Method, Role};
pub use error::{Code, ErrorBody, ErrorInfo};
pub use event::Event;
pub use migration::MigrationReport;
pub use operation::{Done, Operation};

/// Where the daemon listens unless it is told otherwise. Only root reaches it.
pub const SOCKET: &str = "/run/fastmig/api.sock";

/// The header by which a call that is sent twice runs once.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The longest idempotency key, in bytes.
pub const MAX_KEY: usize = 128;

/// The largest request body that the daemon reads, in bytes.
pub const MAX_REQUEST: usize = 64 * 1024;
