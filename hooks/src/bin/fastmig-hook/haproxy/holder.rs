//! The stand-in: keeps connections until the server is back, then passes them on, as they are, until they end.
//!
//! It runs on the source after the hook has ended, and ends by itself.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{sleep, Builder};
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};

use super::admin::Backend;
use super::{Arguments, HaproxyError};

/// How often connections are accepted, and HAProxy asked. A move is short; what lasts is asked for less often.
const SHORT: Duration = Duration::from_millis(4);
const LONG: Duration = Duration::from_millis(25);
const SHORT_FOR: Duration = Duration::from_secs(10);

/// How many are kept at most; further ones wait with the kernel.
const MOST: usize = 8192;

/// How long a connection to the server may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long HAProxy may go unheard before nothing more can be expected of it.
const DEAF_LIMIT: Duration = Duration::from_secs(30);

/// A copier needs little.
const STACK: usize = 128 * 1024;

/// Keeps the connections that come to the listener on standard input.
pub(crate) fn run(arguments: &Arguments) -> Result<(), HaproxyError> {
    let failed = |action| move |source| HaproxyError::StandIn { action, source };
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(failed("take the listener"))?;
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true).map_err(failed("use the listener"))?;
    allow_many_files();
    let backend = Backend { socket: &arguments.socket, name: &arguments.backend };
    let deadline = Instant::now() + Duration::from_secs(arguments.hold);
    let mut held = Vec::new();
    let Some(server) = keep(arguments, &backend, &listener, &mut held, deadline)? else {
        return Ok(()); // nobody came back: what waits is closed
    };
    pass_on(arguments, &backend, &listener, held, server);
    Ok(())
}

/// As many as the system lets us have; less is no reason to fail.
fn allow_many_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Accepts until the server is back, and answers where; nothing when it does not come.
fn keep(
    arguments: &Arguments,
    backend: &Backend<'_>,
    listener: &TcpListener,
    held: &mut Vec<TcpStream>,
    deadline: Instant,
) -> Result<Option<SocketAddr>, HaproxyError> {
    let begun = Instant::now();
    let mut heard = begun;
    // It is still in service when we begin: only once it has been away can it be back.
    let mut was_away = false;
    while Instant::now() < deadline {
        accept(listener, held);
        match backend.server(&arguments.server) {
            Ok(Some(server)) if server.is_in_maintenance() => (was_away, heard) = (true, Instant::now()),
            Ok(Some(server)) => {
                heard = Instant::now();
                let stand_in = backend.server(&arguments.stand_in())?;
                let is_over = stand_in.is_none_or(|stand_in| stand_in.is_in_maintenance());
                if was_away || (is_over && begun.elapsed() > CONNECT_LIMIT) {
                    return Ok(server.socket_address());
                }
            }
            Ok(None) => return Ok(None),
            Err(e) if heard.elapsed() > DEAF_LIMIT => return Err(e),
            Err(_) => {}
        }
        sleep(if begun.elapsed() < SHORT_FOR { SHORT } else { LONG });
    }
    Ok(None)
}

fn accept(listener: &TcpListener, held: &mut Vec<TcpStream>) {
    while held.len() < MOST {
        match listener.accept() {
            Ok((connection, _)) => held.push(connection),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(_) => break,
        }
    }
}

/// Passes on what waits and what still comes, until HAProxy has forgotten us and the last has ended.
fn pass_on(
    arguments: &Arguments,
    backend: &Backend<'_>,
    listener: &TcpListener,
    mut held: Vec<TcpStream>,
    server: SocketAddr,
) {
    let open = Arc::new(AtomicUsize::new(0));
    let stand_in = arguments.stand_in();
    let mut is_removed = false;
    while !is_removed || open.load(Ordering::Acquire) > 0 {
        for connection in held.drain(..) {
            start_passing(connection, server, &open);
        }
        // Who brought the server back says so too; it may have failed between the two.
        is_removed = is_removed
            || match backend.server(&stand_in) {
                Ok(Some(known)) if known.is_in_maintenance() => backend.remove(&stand_in).is_ok(),
                Ok(Some(_)) => {
                    let _ = backend.set_maintenance(&stand_in);
                    false
                }
                Ok(None) => true,
                Err(_) => open.load(Ordering::Acquire) == 0,
            };
        sleep(LONG);
        accept(listener, &mut held);
    }
}

fn start_passing(connection: TcpStream, server: SocketAddr, open: &Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::AcqRel);
    let count = Arc::clone(open);
    let work = move || {
        // What goes wrong ends the connection, which HAProxy sees.
        let _ = pass(&connection, server);
        count.fetch_sub(1, Ordering::AcqRel);
    };
    if Builder::new().stack_size(STACK).spawn(work).is_err() {
        open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Both ways, until both have ended.
fn pass(client: &TcpStream, server: SocketAddr) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect_timeout(&server, CONNECT_LIMIT)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    std::thread::scope(|scope| {
        let back = Builder::new().stack_size(STACK).spawn_scoped(scope, || copy(&server, client))?;
        let there = copy(client, &server);
        back.join().unwrap_or(Ok(())).and(there)
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let result = io::copy(&mut from, &mut to);
    // The other side hears of the end; when it failed, of that.
    let _ = to.shutdown(Shutdown::Write);
    if result.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    result.map(drop)
}
