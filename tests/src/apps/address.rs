//! An address that goes where its application goes, and a move on which a client keeps its connection.

use std::sync::Arc;

use anyhow::{ensure, Result};

use super::migrating;
use super::moving::{travel, Journey};
use super::peer::Peer;
use super::App;
use crate::framework::settings::{at_every_stage, Settings};
use crate::framework::Host;

/// The address that moves.
pub const SERVICE: &str = "10.99.0.50";

/// The settings of a host that gives it away and takes it.
pub fn hooks() -> String {
    let address = format!("{SERVICE}/24");
    at_every_stage(&["fastmig-hook", "network-move", "--address", &address, "--device", "eth0"])
}

/// Whether `host` has it.
pub fn has_address(host: &Host) -> Result<bool> {
    Ok(host.cmd(["ip", "-br", "addr", "show", "dev", "eth0"]).ok()?.contains(&format!("{SERVICE}/24")))
}

/// Adds it to `host`.
pub fn give_address(host: &Host) -> Result<()> {
    host.cmd(["ip", "addr", "add", &format!("{SERVICE}/24"), "dev", "eth0"]).ok().map(drop)
}

/// Removes it from `host`, should it be there.
pub fn take_address(host: &Host) -> Result<()> {
    host.sh(&format!("ip addr del {SERVICE}/24 dev eth0 2>/dev/null; true")).ok().map(drop)
}

/// Two hosts between which the address moves as long as this lives.
#[derive(Debug)]
pub struct Addressed<'a> {
    from: &'a Arc<Host>,
    to: &'a Arc<Host>,
    _settings: [Settings<'a>; 2],
}

impl<'a> Addressed<'a> {
    /// Gives the address to `from`.
    pub fn new(from: &'a Arc<Host>, to: &'a Arc<Host>) -> Result<Self> {
        let settings = [Settings::new(from, &hooks())?, Settings::new(to, &hooks())?];
        give_address(from)?;
        Ok(Self { from, to, _settings: settings })
    }

    /// As [`moving::journey`](super::moving::journey), but the clients are on the host `client`, and none may lose its
    /// connection. Arguments of `ctr run` are none.
    pub fn journey(&self, app: &mut dyn App, client: &Host) -> Result<Journey> {
        let peer = Peer::at(SERVICE, app.port(), client)?;
        let keep = |source: &_, destination: &_| migrating::migrate(source, destination, &["--tcp", "keep"]);
        let journey = travel(app, [self.from, self.to], &[peer], &[], keep)?;
        let times = journey.traffic.reconnects;
        ensure!(times == 0, "a client lost its connection {times} times");
        ensure!(has_address(self.to)? && !has_address(self.from)?, "the address did not move along");
        Ok(journey)
    }
}

impl Drop for Addressed<'_> {
    fn drop(&mut self) {
        for host in [self.from, self.to] {
            // A host that is gone has no address either.
            let _ = take_address(host);
        }
    }
}
