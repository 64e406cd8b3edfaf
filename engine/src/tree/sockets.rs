//! The sockets of processes that stand still, reached from outside.
//!
//! Connections that CRIU has dumped to be kept are in the kernel's repair mode: they neither send nor answer. CRIU ends that
//! for an application that it leaves running; for one that it leaves stopped, and that is to run on after all, we do.
//!
//! Connections that are not kept are heard of no more once the application lives elsewhere, and whoever waits for an answer would
//! do so until what has stayed here is killed, and its memory freed, or as long as that is read: so they are shut down at once.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::sockopt::{self, TcpRepair};
use nix::sys::socket::{
    getsockname, getsockopt, setsockopt, shutdown, AddressFamily, Shutdown, SockType, SockaddrLike,
    SockaddrStorage,
};
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

/// Ends the repair of all connections of these processes, which must not run yet. Answers how many there were.
///
/// # Errors
/// When a connection stays in repair; the others have been seen to.
pub(crate) fn end_repair(pids: impl IntoIterator<Item = i32>) -> io::Result<usize> {
    each(pids, HashSet::new(), end_repair_of)
}

/// Shuts down what these processes have of TCP, connections and listeners, but for what `init`, the container's PID 1, has as well:
/// that came from outside, and belongs to others, too. Answers how many there were.
///
/// # Errors
/// When one cannot be reached; the others have been seen to.
pub(crate) fn hang_up(pids: impl IntoIterator<Item = i32>, init: i32) -> io::Result<usize> {
    let others = sockets_of(init).into_iter().map(|(_, socket)| socket).collect();
    each(pids, others, shut_down)
}

/// Does something to each socket of these processes that was not `seen`. Answers to how many it was done.
fn each(
    pids: impl IntoIterator<Item = i32>,
    mut seen: HashSet<PathBuf>,
    act: impl Fn(&OwnedFd) -> io::Result<bool>,
) -> io::Result<usize> {
    let (mut done, mut outcome) = (0, Ok(()));
    for pid in pids {
        let sockets = sockets_of(pid).into_iter().filter(|(_, socket)| seen.insert(socket.clone()));
        for (number, _) in sockets.collect::<Vec<_>>() {
            match copy(pid, number).and_then(|socket| act(&socket)) {
                Ok(acted) => done += usize::from(acted),
                Err(e) => outcome = Err(e),
            }
        }
    }
    outcome.map(|()| done)
}

/// Numbers and names of the sockets that a process has; none when it is gone.
fn sockets_of(pid: i32) -> Vec<(i32, PathBuf)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let socket = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        target.to_str()?.starts_with("socket:").then_some((number, target))
    };
    entries.flatten().filter_map(socket).collect()
}

fn copy(pid: i32, number: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?)
}

/// Whether it was in repair. A socket that is no TCP connection never is.
fn end_repair_of(socket: &OwnedFd) -> io::Result<bool> {
    match getsockopt(socket, TcpRepair) {
        Ok(mode) if mode != 0 => {
            setsockopt(socket, TcpRepair, &0)?;
            Ok(true)
        }
        Ok(_) | Err(_) => Ok(false),
    }
}

/// Whether it was one of TCP's, and open.
fn shut_down(socket: &OwnedFd) -> io::Result<bool> {
    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|name| name.family());
    let is_inet = matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6));
    if !is_inet || getsockopt(socket, sockopt::SockType)? != SockType::Stream {
        return Ok(false);
    }
    // Not connected: there is nobody to hear of it.
    Ok(shutdown(socket.as_raw_fd(), Shutdown::Both).is_ok())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_in_repair_speaks_again() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        setsockopt(&server, TcpRepair, &1).unwrap();
        // The unit tests' process has other sockets, too.
        assert_eq!(end_repair([std::process::id().cast_signed()]).unwrap(), 1);
        assert_eq!(getsockopt(&server, TcpRepair).unwrap(), 0);
        server.write_all(b"x").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    /// Whose only sockets these two are.
    fn holder(listener: &TcpListener, connection: &TcpStream) -> Child {
        let [stdin, stdout] =
            [OwnedFd::from(listener.try_clone().unwrap()), connection.try_clone().unwrap().into()];
        Command::new("sleep").arg("60").stdin(stdin).stdout(stdout).stderr(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn whoever_talks_to_one_that_has_left_hears_of_it_unless_its_sockets_are_others_too() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut left = holder(&listener, &server);
        drop((listener, server));
        let pid = left.id().cast_signed();
        let as_others_too = hang_up([pid], pid).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let waits = client.read(&mut [0]);
        let nobody = std::process::id().cast_signed();
        let hung_up = hang_up([pid], nobody);
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let hears = client.read(&mut [0]);
        let again = TcpStream::connect(address);
        left.kill().unwrap();
        left.wait().unwrap();
        assert_eq!(as_others_too, 0);
        assert!(waits.is_err(), "{waits:?}");
        assert_eq!(hung_up.unwrap(), 2);
        assert_eq!(hears.unwrap(), 0);
        assert!(again.is_err(), "{again:?}");
    }
}
