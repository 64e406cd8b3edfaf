//! The hosts of the demo.

use std::sync::Arc;

use anyhow::Result;

use crate::framework::daemon::cluster;
use crate::framework::leftovers::nothing_is_left;
use crate::framework::{dist, Generation, Host, Session};

/// Two hosts that applications move between, and one for their clients. They go down with their session, which is dropped last.
pub(super) struct Stage {
    pub(super) a: Arc<Host>,
    pub(super) b: Arc<Host>,
    /// It has neither containerd nor FastMig.
    pub(super) c: Arc<Host>,
    pub(super) session: Session,
}

impl Stage {
    pub(super) fn up() -> Result<Self> {
        println!(
            "two hosts: a runs Debian trixie, b the coming forky, each with containerd, FastMig and its daemon; \
             and c for clients"
        );
        let dist = dist::build()?;
        let session = Session::start()?;
        let up = |name, generation| -> Result<Arc<Host>> {
            let host = session.host(name, generation)?;
            host.install(&dist)?;
            host.start_containerd()?;
            Ok(host)
        };
        let (a, b) = (up("a", Generation::Trixie)?, up("b", Generation::Forky)?);
        let c = session.host("c", Generation::Trixie)?;
        cluster(&[&a, &b])?;
        Ok(Self { a, b, c, session })
    }

    /// Fails when a host holds what an application should have taken with it.
    pub(super) fn require_nothing_left(&self) -> Result<()> {
        nothing_is_left(&self.a)?;
        nothing_is_left(&self.b)
    }
}
