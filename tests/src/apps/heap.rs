//! Heaps under a garbage collector: a JVM and nodejs that replace what they hold without end, and know all of it.

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::http::{get_json, CountingClient};
use super::load::{Client, Traffic};
use super::peer::Peer;
use super::{facts, java, programs, App, Facts};
use crate::framework::Session;

use std::time::Duration;

/// Filling a heap takes seconds on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A JVM, with twice as much heap as lives in it.
    Java,
    /// nodejs.
    Node,
}

/// A heap of so many MiB that live.
#[derive(Debug)]
pub(super) struct Heap {
    engine: Engine,
    mib: u32,
    client: CountingClient,
    before: Value,
}

impl Heap {
    pub(super) fn new(engine: Engine, mib: u32) -> Self {
        Self { engine, mib, client: CountingClient::default(), before: Value::Null }
    }
}

impl App for Heap {
    fn name(&self) -> &'static str {
        match self.engine {
            Engine::Java => "java",
            Engine::Node => "node",
        }
    }

    fn port(&self) -> u16 {
        8083
    }

    fn options(&self) -> Vec<String> {
        match self.engine {
            Engine::Java => java::mount(),
            Engine::Node => programs::mount(),
        }
    }

    fn command(&self) -> Vec<String> {
        let (port, mib) = (self.port().to_string(), self.mib.to_string());
        let words: Vec<String> = match self.engine {
            Engine::Java => {
                let heap = format!("-Xmx{}m", self.mib * 2);
                // Two threads, each with 40 MiB of new nodes each second.
                let of_java = ["java", &heap, java::NO_DELAY, "-cp", java::IN_CONTAINER, "Heap"];
                of_java.into_iter().chain([port.as_str(), &mib, "2", "20"]).map(String::from).collect()
            }
            Engine::Node => vec!["node".into(), programs::in_container("heap.js"), port, mib, "8".into()],
        };
        words
    }

    fn prepare(&self, session: &Session) -> Result<()> {
        match self.engine {
            Engine::Java => java::provide(session),
            Engine::Node => programs::provide(session),
        }
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        whole(peer).context("before the move")?;
        self.before = get_json(peer, "/state")?;
        Ok(Facts::new())
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        vec![Box::new(self.client.clone())]
    }

    fn verify(&mut self, peer: &Peer, _: &Traffic) -> Result<Facts> {
        let nodes = whole(peer).context("after the move")?;
        super::require_progress(|| get_json(peer, "/state"), "replaced")?;
        let state = get_json(peer, "/state")?;
        ensure!(state["started"] == self.before["started"], "{} became {state}", self.before);
        self.client.require(&state["count"])?;
        let since = |name: &str| Some(state[name].as_u64()? - self.before[name].as_u64()?);
        let collections = since("collections").context("no collections")?;
        ensure!(collections > 0, "no garbage was collected: {} became {state}", self.before);
        whole(peer).context("some time after the move")?;
        Ok(facts([
            ("nodes", nodes),
            ("replaced", json!(since("replaced"))),
            ("collections", json!(collections)),
        ]))
    }
}

/// Fails unless each node is what it must be; how many there are.
fn whole(peer: &Peer) -> Result<Value> {
    let told = get_json(peer, "/check")?;
    ensure!(told["ok"] == true && told["nodes"].as_u64() > Some(0), "its heap is wrong: {told}");
    Ok(told["nodes"].clone())
}
