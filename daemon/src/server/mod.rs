//! Who is let in: root on a unix socket, and certificates of the authority's over TCP.
//!
//! | file | what it does |
//! |---|---|
//! | `unix` | the socket that only root reaches |
//! | `tcp` | mutual TLS; by protocol to HTTP, a migration or a new host |
//! | `http` | a connection's requests, within limits |
//! | `idle` | when a connection has had nothing to do for too long |

mod http;
mod idle;
mod tcp;
mod unix;

pub(crate) use http::Http;
pub(crate) use tcp::{Gate, Tcp};
pub(crate) use unix::Unix;
