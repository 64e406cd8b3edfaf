//! nodejs: an HTTP server that counts its requests, with a timer and a large map.

use anyhow::{ensure, Context, Result};
use serde_json::json;

use super::http::{get_json, CountingClient};
use super::load::{Client, Traffic};
use super::peer::Peer;
use super::programs::{in_container, mount, provide};
use super::{facts, App, Facts, START_LIMIT};
use crate::framework::Session;

/// `count.js` on an unmodified node.
#[derive(Debug, Default)]
pub(super) struct Node {
    client: CountingClient,
    digest: String,
}

impl App for Node {
    fn name(&self) -> &'static str {
        "node"
    }

    fn port(&self) -> u16 {
        8081
    }

    fn options(&self) -> Vec<String> {
        mount()
    }

    fn command(&self) -> Vec<String> {
        vec!["node".into(), in_container("count.js"), self.port().to_string()]
    }

    fn prepare(&self, session: &Session) -> Result<()> {
        provide(session)
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        self.digest = get_json(peer, "/state")?["digest"].as_str().context("no digest")?.to_owned();
        Ok(Facts::new())
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        vec![Box::new(self.client.clone())]
    }

    fn verify(&mut self, peer: &Peer, traffic: &Traffic) -> Result<Facts> {
        let state = get_json(peer, "/state")?;
        ensure!(state["digest"] == self.digest.as_str(), "its map has changed: {state}");
        self.client.require(&state["count"])?;
        super::require_progress(|| get_json(peer, "/state"), "ticks")?;
        Ok(facts([("count_before", json!(traffic.before())), ("count_after", state["count"].clone())]))
    }
}
