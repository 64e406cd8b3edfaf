//! nginx: its workers run as another user, and answer four clients with the same page all the time.

use std::time::Duration;

use anyhow::{ensure, Result};
use serde_json::json;

use super::http::get;
use super::load::{Client, Trouble};
use super::peer::{Connection, Peer};
use super::{facts, App, Facts};

const CLIENTS: usize = 4;
const START_LIMIT: Duration = Duration::from_secs(20);

/// An unmodified nginx.
#[derive(Debug, Default)]
pub struct Nginx {
    page: Vec<u8>,
}

impl App for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn port(&self) -> u16 {
        80
    }

    fn files(&self) -> &'static [&'static str] {
        &["run", "var/log/nginx", "var/lib/nginx"]
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        self.page = get(&mut peer.connect()?, "/")?;
        ensure!(!self.page.is_empty(), "an empty page");
        Ok(facts([("page_bytes", json!(self.page.len()))]))
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        (0..CLIENTS).map(|_| Box::new(Reader(self.page.clone())) as Box<dyn Client>).collect()
    }

    fn verify(&mut self, peer: &Peer) -> Result<Facts> {
        ensure!(get(&mut peer.connect()?, "/")? == self.page, "another page than before");
        Ok(Facts::new())
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
