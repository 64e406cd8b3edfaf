//! Real applications: how each is run, filled with state, kept busy, and asked whether its state survived a move.
//!
//! The demo and the test suites move them the same way: [`moving`] is the whole way of one move, [`container`] one
//! container of a host, [`transfer`] the way of an image from host to host, [`load`] the clients meanwhile. [`balancer`] and
//! [`address`] are for moves that no client notices.

pub mod address;
pub mod balancer;
pub mod container;
pub mod conversation;
mod flood;
pub mod heap;
pub mod http;
mod java;
pub mod load;
pub mod memory;
pub mod migrating;
pub mod moving;
mod nginx;
mod node;
pub mod peer;
mod pgbench;
mod postgres;
mod programs;
mod python;
mod redis;
pub mod transfer;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::framework::process::wait_until;
use crate::framework::{Host, Session};
use load::{Client, Traffic};
use peer::Peer;

pub use programs::{in_container, mount as program_mount, provide};

/// What was found in an application, under the names that the demo prints.
pub type Facts = Map<String, Value>;

const START_LIMIT: Duration = Duration::from_secs(30);
const PROGRESS_LIMIT: Duration = Duration::from_secs(10);

/// One application, and what its clients know of the state that it must have.
pub trait App {
    /// Its name, and that of its image.
    fn name(&self) -> &'static str;

    /// The port that it listens on.
    fn port(&self) -> u16;

    /// Arguments of `ctr run` before the image.
    fn options(&self) -> Vec<String> {
        Vec::new()
    }

    /// The command in place of the image's own.
    fn command(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes what `options` and `command` speak of.
    fn prepare(&self, _: &Session) -> Result<()> {
        Ok(())
    }

    /// Waits until it answers, and puts state into it; answers what is in it now.
    fn fill(&mut self, peer: &Peer) -> Result<Facts>;

    /// Starts programs on `host` that use it beside the clients until it is verified.
    fn accompany(&mut self, _host: &Arc<Host>, _peers: &[Peer]) -> Result<()> {
        Ok(())
    }

    /// Clients that ask it without end.
    fn clients(&self) -> Vec<Box<dyn Client>>;

    /// Checks, while no client asks, that all that was acknowledged is there; answers what is in it now. The first peer in
    /// `traffic` was asked before the move, the last one after it.
    fn verify(&mut self, peer: &Peer, traffic: &Traffic) -> Result<Facts>;
}

/// All applications, the demo's main one last.
pub fn all() -> Vec<Box<dyn App>> {
    vec![
        Box::new(nginx::Nginx::default()),
        Box::new(postgres::Postgres::default()),
        Box::new(node::Node::default()),
        Box::new(java::Java::default()),
        Box::new(python::Python::default()),
        Box::new(redis::Redis::default()),
    ]
}

/// The application of this name.
pub fn named(name: &str) -> Option<Box<dyn App>> {
    all().into_iter().find(|app| app.name() == name)
}

/// PostgreSQL with so many MiB of shared buffers, nearly all of which are filled.
pub fn warm_postgres(buffers: u32) -> Box<dyn App> {
    Box::new(postgres::Postgres::warm(buffers))
}

/// A heap of so many MiB under a garbage collector that never rests.
pub fn busy_heap(engine: heap::Engine, mib: u32) -> Box<dyn App> {
    Box::new(heap::Heap::new(engine, mib))
}

/// redis that is written as fast as it takes, up to so many MiB each second, and saves itself meanwhile.
pub fn flooded_redis(rate: u32) -> Box<dyn App> {
    Box::new(flood::FloodedRedis::new(rate))
}

fn facts<const N: usize>(entries: [(&str, Value); N]) -> Facts {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Waits until the number called `name` in the application's state grows.
fn require_progress(state: impl Fn() -> Result<Value>, name: &str) -> Result<()> {
    let number = || state().ok().and_then(|state| state[name].as_u64());
    let first = number().with_context(|| format!("no {name} in its state"))?;
    wait_until(PROGRESS_LIMIT, || number().is_some_and(|now| now > first))
        .with_context(|| format!("{name} stands still at {first}"))
}
