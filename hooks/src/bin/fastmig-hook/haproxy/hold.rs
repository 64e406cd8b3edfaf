//! The way in: the stand-in comes, the server goes into maintenance and ends what it has begun.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::admin::{Backend, Server};
use super::release::release;
use super::{Arguments, HaproxyError};

const POLL: Duration = Duration::from_millis(5);

/// Lets new requests wait, and the old ones end.
pub(super) fn hold(arguments: &Arguments) -> Result<(), HaproxyError> {
    let backend = Backend { socket: &arguments.socket, name: &arguments.backend };
    let servers = backend.servers()?;
    require_here(arguments, &servers)?;
    if !others_serve(arguments, &servers) {
        stand_in(arguments, &backend)?;
    }
    let drained = backend.set_maintenance(&arguments.server).and_then(|()| drain(arguments, &backend));
    // Whoever hears of the failure may not call us again: nothing waits for ever.
    drained.inspect_err(|_| drop(release(arguments)))
}

fn require_here(arguments: &Arguments, servers: &[Server]) -> Result<(), HaproxyError> {
    let (backend, server) = (arguments.backend.clone(), arguments.server.clone());
    let Some(found) = servers.iter().find(|other| other.name == server.to_string()) else {
        return Err(HaproxyError::NoServer { backend, server });
    };
    if found.socket_address() != Some(arguments.address) {
        let there = format!("{}:{}", found.address, found.port);
        return Err(HaproxyError::Elsewhere { backend, server, there, here: arguments.address });
    }
    Ok(())
}

/// Whether the backend does without the server.
fn others_serve(arguments: &Arguments, servers: &[Server]) -> bool {
    let ours = [arguments.server.to_string(), arguments.stand_in().to_string()];
    servers.iter().any(|server| server.is_usable() && !ours.contains(&server.name))
}

/// Starts the holder, and lets HAProxy know it as a server.
fn stand_in(arguments: &Arguments, backend: &Backend<'_>) -> Result<(), HaproxyError> {
    let failed = |action| move |source| HaproxyError::StandIn { action, source };
    let ip = match arguments.hold_address {
        Some(ip) => ip,
        None => arguments.socket.own_address().map_err(failed("find an address"))?,
    };
    let listener = TcpListener::bind((ip, arguments.hold_port)).map_err(failed("listen"))?;
    let address = listener.local_addr().map_err(failed("listen"))?;
    let name = arguments.stand_in();
    match backend.server(&name)? {
        // Left by a hold that was killed.
        Some(_) => backend.set_address(&name, address)?,
        None => backend.add(&name, address, &arguments.server_options.0)?,
    }
    start_holder(listener).map_err(failed("start a process"))?;
    backend.set_ready(&name)
}

/// In a process group of its own, for it outlives this hook. The listener is its standard input.
fn start_holder(listener: TcpListener) -> std::io::Result<()> {
    let mut own = std::env::args_os().skip(1);
    let mut command = Command::new("/proc/self/exe");
    // The same arguments under the other name.
    command.arg("haproxy-holder").args(own.by_ref().skip_while(|word| word != "haproxy").skip(1));
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().map(drop)
}

fn drain(arguments: &Arguments, backend: &Backend<'_>) -> Result<(), HaproxyError> {
    let deadline = Instant::now() + arguments.drain();
    loop {
        let requests = backend.requests(&arguments.server)?;
        if requests == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(HaproxyError::NotDrained {
                requests,
                backend: arguments.backend.clone(),
                server: arguments.server.clone(),
                seconds: arguments.drain,
            });
        }
        sleep(POLL);
    }
}
