//! nginx: its workers run as another user, and answer four clients with the same page all the time.

use anyhow::{ensure, Result};
use serde_json::json;

use super::http::get;
use super::load::{Client, Traffic, Trouble};
use super::peer::{Connection, Peer};
use super::{facts, App, Facts, START_LIMIT};

const CLIENTS: usize = 4;
/// An unmodified nginx.
#[derive(Debug, Default)]
pub(super) struct Nginx {
    page: Vec<u8>,
}

impl App for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn port(&self) -> u16 {
        80
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        self.page = get(&mut peer.connect()?, "/")?;
        ensure!(!self.page.is_empty(), "an empty page");
        Ok(Facts::new())
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        (0..CLIENTS).map(|_| Box::new(Reader(self.page.clone())) as Box<dyn Client>).collect()
    }

    fn verify(&mut self, peer: &Peer, traffic: &Traffic) -> Result<Facts> {
        ensure!(get(&mut peer.connect()?, "/")? == self.page, "another page than before");
        Ok(facts([
            ("requests_before", json!(traffic.before())),
            ("requests_after", json!(traffic.after())),
            ("clients", json!(CLIENTS)),
        ]))
    }
}

struct Reader(Vec<u8>);

impl Client for Reader {
    fn request(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        if get(connection, "/")? != self.0 {
            return Err(Trouble::Wrong("another page than before".into()));
        }
        Ok(())
    }
}
