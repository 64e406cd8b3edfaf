//! `start`: finds or starts the shim process that serves a container, and says where it listens.

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use containerd_shim::cgroup::{add_task_to_cgroup, adjust_oom_score};
use containerd_shim::{socket_address, StartOpts};

use crate::error::Error;
use crate::options::Options;
use crate::spec::Spec;

const ADDRESS_FILE: &str = "address";
const PID_FILE: &str = "shim.pid";
/// The FIFO in the bundle that containerd reads a shim's log from.
const LOG_FIFO: &str = "log";

/// The address of the shim for the bundle in the working directory.
pub(crate) fn start(wanted: &StartOpts) -> Result<String, Error> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input).map_err(|e| Error::io("read", "standard input", e))?;
    let options = Options::from_stdin(&input);
    let spec = Spec::read(Path::new("."))?;
    let address = socket_address(&wanted.address, &wanted.namespace, spec.group(&wanted.id));
    if !is_alive(&address) {
        remove_socket(&address)?;
        let mut shim = spawn(wanted, &address)?;
        if let Err(error) = place(&shim, &options).and_then(|()| wait_until_it_serves(&mut shim, &address)) {
            // It has ended already, or does now.
            let _ = shim.kill();
            let _ = shim.wait();
            return Err(error);
        }
        write(PID_FILE, &shim.id().to_string())?;
    }
    write(ADDRESS_FILE, &address)?;
    Ok(address)
}

/// Removes the socket of the shim that served `bundle`, unless it lives and serves others of its pod.
pub(crate) fn forget(bundle: &Path) -> Result<(), Error> {
    match std::fs::read_to_string(bundle.join(ADDRESS_FILE)) {
        Ok(address) if !is_alive(&address) => remove_socket(&address),
        _ => Ok(()),
    }
}

fn spawn(wanted: &StartOpts, address: &str) -> Result<Child, Error> {
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let mut command = Command::new(&program);
    command.args(["-namespace", &wanted.namespace, "-id", &wanted.id]);
    command.args(["-address", &wanted.address, "-socket", address]);
    if wanted.debug {
        command.arg("-debug");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_or_null()).process_group(0);
    command.spawn().map_err(|e| Error::io("start", program, e))
}

/// What goes wrong before the shim has a log, or in a panic, goes to containerd's log.
fn log_or_null() -> Stdio {
    let log = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(LOG_FIFO);
    log.map_or_else(|_| Stdio::null(), Stdio::from)
}

/// Puts it into the cgroup that the options name, and makes it a worse choice than containerd for the kernel
/// when memory runs out.
fn place(shim: &Child, options: &Options) -> Result<(), Error> {
    let error = |e: containerd_shim::Error| Error::io("place", "the shim", io::Error::other(e.to_string()));
    if !options.shim_cgroup.is_empty() {
        add_task_to_cgroup(&options.shim_cgroup, shim.id()).map_err(error)?;
    }
    adjust_oom_score(shim.id()).map_err(error)
}

/// The shim closes its standard output when it serves, and so it does when it ends.
fn wait_until_it_serves(shim: &mut Child, address: &str) -> Result<(), Error> {
    if let Some(mut output) = shim.stdout.take() {
        io::copy(&mut output, &mut io::sink()).map_err(|e| Error::io("wait for", "the shim", e))?;
    }
    if is_alive(address) {
        return Ok(());
    }
    let reason = match shim.try_wait() {
        Ok(Some(status)) => format!("it ended: {status}; containerd's log says why"),
        Ok(None) => "it does not listen".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(Error::io("start", "the shim", io::Error::other(reason)))
}

/// Whether a shim listens there: one that has died leaves its socket behind.
fn is_alive(address: &str) -> bool {
    UnixStream::connect(path(address)).is_ok()
}

fn remove_socket(address: &str) -> Result<(), Error> {
    match std::fs::remove_file(path(address)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path(address), e)),
        _ => Ok(()),
    }
}

fn path(address: &str) -> &Path {
    Path::new(address.trim_start_matches("unix://"))
}

fn write(name: &str, content: &str) -> Result<(), Error> {
    std::fs::write(name, content).map_err(|e| Error::io("write", name, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_shim_is_not_alive_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let address = format!("unix://{}", socket.display());
        assert!(!is_alive(&address));
        remove_socket(&address).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(directory.path().join(ADDRESS_FILE), &address).unwrap();
        forget(directory.path()).unwrap();
        assert!(is_alive(&address));
        drop(listener);
        assert!(!is_alive(&address));
        forget(directory.path()).unwrap();
        assert!(!socket.exists());
    }
}
