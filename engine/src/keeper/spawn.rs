//! A keeper comes up: one process, nobody's child, which inherits nothing.
//!
//! It is started twice. The first is our child for a moment; the second is nobody's, as whoever calls us waits for no
//! child that he does not know. Of the descriptors that its caller was given, some are the container's own streams, and
//! their readers wait for the last writer to close them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::WORD;
use crate::state::ProcessMark;
use crate::{Container, Error};

/// What says that a process is nobody's child.
pub(super) const ALONE: &str = "alone";

/// Ourselves, whatever has become of our file.
const OURSELVES: &str = "/proc/self/exe";

/// Which process keeps the container; a lock on it says that there is no other.
const FILE: &str = "keeper.json";

/// The right to be the one keeper of a container.
pub(super) struct OnlyOne {
    _lock: Flock<File>,
}

impl OnlyOne {
    /// Takes it; none when another has it.
    pub(super) fn take(container: &Container) -> Result<Option<Self>, Error> {
        let path = container.directory.file(FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(Error::io("lock", &path, errno.into())),
        };
        let me = ProcessMark::of(i32::try_from(std::process::id()).unwrap_or(0));
        let mark = serde_json::to_vec(&me).map_err(std::io::Error::from);
        let written = mark.and_then(|mark| lock.set_len(0).and_then(|()| (&*lock).write_all(&mark)));
        written.map_err(|e| Error::io("write", &path, e))?;
        Ok(Some(Self { _lock: lock }))
    }
}

/// The process that keeps a container, while it runs.
pub(crate) fn keeper_of(container: &Container) -> Option<i32> {
    let text = std::fs::read(container.directory.file(FILE)).ok()?;
    let mark: Option<ProcessMark> = serde_json::from_slice(&text).ok()?;
    mark.filter(|mark| mark.runs()).map(|mark| mark.pid)
}

/// Starts a keeper for a container that has a policy and none. Whether one was started.
pub(crate) fn ensure(container: &Container) -> Result<bool, Error> {
    if keeper_of(container).is_some() {
        return Ok(false);
    }
    let key = container.key();
    let started = command([key.namespace(), key.id()]).status();
    match started {
        Ok(status) if status.success() => Ok(true),
        Ok(status) => Err(cannot(std::io::Error::other(status.to_string()))),
        Err(e) => Err(cannot(e)),
    }
}

fn cannot(source: std::io::Error) -> Error {
    Error::stdio("start the keeper of the container by", source)
}

fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(OURSELVES);
    command.arg(WORD).args(arguments).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A signal from a terminal, or to whoever starts us, is not meant for it.
    command.process_group(0);
    command
}

/// The first of the two: starts the second without a descriptor of anybody's, and ends.
pub(super) fn step_aside(namespace: &str, id: &str) -> ExitCode {
    close_fds::set_fds_cloexec(3, &[]);
    // Out of the session too: a terminal's end is no news to it.
    let _ = nix::unistd::setsid();
    match command([namespace, id, ALONE]).spawn() {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
