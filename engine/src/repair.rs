//! Connections that CRIU has dumped to be kept are in the kernel's repair mode: they neither send nor answer. CRIU ends that
//! for an application that it leaves running; for one that it leaves stopped, and that is to run on after all, we do.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpRepair};
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

/// Ends the repair of all connections of these processes, which must not run yet. Answers how many there were.
///
/// # Errors
/// When a connection stays in repair; the others have been seen to.
pub(crate) fn end(pids: impl IntoIterator<Item = i32>) -> io::Result<usize> {
    let (mut seen, mut ended, mut outcome) = (HashSet::new(), 0, Ok(()));
    for pid in pids {
        let sockets = sockets_of(pid).into_iter().filter(|(_, socket)| seen.insert(socket.clone()));
        for (number, _) in sockets.collect::<Vec<_>>() {
            match copy(pid, number).and_then(|socket| end_one(&socket)) {
                Ok(true) => ended += 1,
                Ok(false) => {}
                Err(e) => outcome = Err(e),
            }
        }
    }
    outcome.map(|()| ended)
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
fn end_one(socket: &OwnedFd) -> io::Result<bool> {
    match getsockopt(socket, TcpRepair) {
        Ok(mode) if mode != 0 => {
            setsockopt(socket, TcpRepair, &0)?;
            Ok(true)
        }
        Ok(_) | Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

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
        assert_eq!(end([std::process::id().cast_signed()]).unwrap(), 1);
        assert_eq!(getsockopt(&server, TcpRepair).unwrap(), 0);
        server.write_all(b"x").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
}
