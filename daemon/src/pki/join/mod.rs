//! How a host or operator gets a certificate: over TLS it shows a token's secret and a request, and is given a
//! certificate, the authority's own, and the other hosts' addresses.
//!
//! | file | what it does |
//! |---|---|
//! | `message` | one line each way |
//! | `server` | the host that signs |
//! | `client` | the one that asks |

mod client;
mod message;
mod server;

pub use client::{join, Joined};
pub use server::Desk;
