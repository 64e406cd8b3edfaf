//! The network of a realm: a bridge in a namespace of its own, and a pair of interfaces for each host.
//!
//! Nothing of it is in the machine's own network namespace.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::command::Cmd;
use super::mounts::{mounts_of, unmount_below};
use super::process::ProcessId;
use super::realm::Realm;
use super::state::HostState;

/// Where `ip netns` keeps names of namespaces.
const NAMES: &str = "/run/netns";

const BRIDGE: &str = "br0";

/// Makes the realm's bridge, unless it is there.
pub fn create(realm: &Realm) -> Result<()> {
    let name = realm.net_namespace();
    if !exists(realm) {
        Cmd::new(["ip", "netns", "add", &name]).ok()?;
    }
    if in_bridge(realm, &["link", "show", BRIDGE]).is_err() {
        in_bridge(realm, &["link", "set", "lo", "up"])?;
        in_bridge(realm, &["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"])?;
        in_bridge(realm, &["link", "set", BRIDGE, "up"])?;
    }
    Ok(())
}

/// Joins a host to the bridge.
pub fn join(realm: &Realm, host: &HostState, init: ProcessId) -> Result<()> {
    let (port, pid) = (port(host), init.pid.to_string());
    let pair = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid];
    in_bridge(realm, &pair).context("cannot join the host to its network")?;
    in_bridge(realm, &["link", "set", &port, "master", BRIDGE, "up"])?;
    let script = format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", host.address());
    Cmd::new(["nsenter", "-t", &pid, "-n", "ip", "-batch", "-"]).stdin(script).ok()?;
    Ok(())
}

/// Lets a host send and receive `mib` MiB each second at most, or as much as it can.
pub(super) fn limit(realm: &Realm, host: &HostState, init: ProcessId, mib: Option<u32>) -> Result<()> {
    let (port, pid) = (port(host), init.pid.to_string());
    let outside = ["ip", "netns", "exec", &realm.net_namespace(), "tc", "qdisc"].map(String::from);
    let inside = ["nsenter", "-t", &pid, "-n", "tc", "qdisc"].map(String::from);
    for (tool, device) in [(outside, port.as_str()), (inside, "eth0")] {
        let old = tool.iter().cloned().chain(["del", "dev", device, "root"].map(String::from));
        // There may be none.
        Cmd::new(old).output()?;
        if let Some(mib) = mib {
            let (rate, device) = (format!("{}bit", u64::from(mib) << 23), device.to_owned());
            let new =
                ["add", "dev", &device, "root", "tbf", "rate", &rate, "burst", "1mb", "latency", "50ms"];
            Cmd::new(tool.into_iter().chain(new.map(String::from))).ok()?;
        }
    }
    Ok(())
}

/// Takes a host off the bridge, at once: the kernel removes the namespace of a dead host at its leisure.
pub fn leave(realm: &Realm, host: &HostState) -> Result<()> {
    let port = port(host);
    let is_there = || exists(realm) && in_bridge(realm, &["link", "show", &port]).is_ok();
    if !is_there() {
        return Ok(());
    }
    match in_bridge(realm, &["link", "del", &port]) {
        Err(error) if is_there() => Err(error),
        // Or the kernel was faster.
        _ => Ok(()),
    }
}

/// Removes the bridge and its namespace.
pub fn remove(realm: &Realm) -> Result<()> {
    if exists(realm) {
        Cmd::new(["ip", "netns", "del", &realm.net_namespace()]).ok()?;
    }
    remove_empty_names()
}

/// `ip netns` mounts its directory of names onto itself and leaves that behind.
fn remove_empty_names() -> Result<()> {
    let names = Path::new(NAMES);
    let is_empty = fs::read_dir(names).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty && mounts_of("self")?.iter().any(|mount| mount.point == names) {
        unmount_below(names)?;
        // Another program may have put a name there meanwhile.
        let _ = fs::remove_dir(names);
    }
    Ok(())
}

fn exists(realm: &Realm) -> bool {
    Path::new(NAMES).join(realm.net_namespace()).exists()
}

fn port(host: &HostState) -> String {
    format!("h-{}", host.name)
}

fn in_bridge(realm: &Realm, arguments: &[&str]) -> Result<String> {
    Cmd::new([&["ip", "-n", realm.net_namespace().as_str()], arguments].concat()).ok()
}
