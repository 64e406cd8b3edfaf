//! Sockets in a host's network.

use std::fs::File;
use std::thread;

use anyhow::{anyhow, Context, Result};
use fastmig_tests::framework::Host;
use nix::sched::{setns, CloneFlags};

/// Makes a socket, which is of the network that it is made in.
pub(crate) fn within<T: Send>(host: &Host, make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/proc/{}/ns/net", host.pid());
    let network = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    let there = || {
        setns(&network, CloneFlags::CLONE_NEWNET)?;
        make()
    };
    thread::scope(|scope| scope.spawn(there).join()).map_err(|_| anyhow!("a thread panicked"))?
}
