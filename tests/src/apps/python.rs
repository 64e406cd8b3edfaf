//! Python: an HTTP server with threads, a pipe between two of them, a file and a file that is deleted but open. It knows itself
//! how long it stood still.

use anyhow::{ensure, Result};
use serde_json::{json, Value};

use super::http::{get_json, CountingClient};
use super::load::{Client, Traffic};
use super::peer::Peer;
use super::programs::{in_container, mount, provide};
use super::{facts, App, Facts, START_LIMIT};
use crate::framework::Session;

/// `count.py` on an unmodified python.
#[derive(Debug, Default)]
pub(super) struct Python {
    client: CountingClient,
    before: Value,
}

impl App for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn port(&self) -> u16 {
        8083
    }

    fn options(&self) -> Vec<String> {
        mount()
    }

    fn command(&self) -> Vec<String> {
        vec!["python3".into(), in_container("count.py"), self.port().to_string()]
    }

    fn prepare(&self, session: &Session) -> Result<()> {
        provide(session)
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        self.before = get_json(peer, "/state")?;
        ensure!(self.before["deleted_nlink"] == json!(0), "its file is not deleted: {}", self.before);
        Ok(Facts::new())
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        vec![Box::new(self.client.clone())]
    }

    fn verify(&mut self, peer: &Peer, traffic: &Traffic) -> Result<Facts> {
        let state = get_json(peer, "/state")?;
        for unchanged in ["threads", "deleted_digest", "deleted_nlink"] {
            ensure!(state[unchanged] == self.before[unchanged], "{} became {state}", self.before);
        }
        for intact in ["pipe_intact", "file_intact"] {
            ensure!(state[intact] == json!(true), "not {intact}: {state}");
        }
        self.client.require(&state["count"])?;
        for going_on in ["ticks", "pipe_numbers", "file_lines"] {
            super::require_progress(|| get_json(peer, "/state"), going_on)?;
        }
        Ok(facts([
            ("count_before", json!(traffic.before())),
            ("count_after", state["count"].clone()),
            ("app_gap_ms", state["gap_ms"].clone()),
            ("threads", state["threads"].clone()),
            ("pipe_intact", state["pipe_intact"].clone()),
            ("deleted_file_kept", json!(true)),
        ]))
    }
}
