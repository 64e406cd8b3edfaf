//! Where runc itself creates, starts and waits in one command (`runc run` in the foreground), somebody else must bring
//! the application up and clear away: a process that attends runc's from beside it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::container::proc_of;
use crate::runc::{Runc, RuncError};
use crate::state::{Directory, Key, ProcessMark};
use crate::{create, Config, Container, Error, Kind};

/// How often runc's pid file is looked for.
const PAUSE: Duration = Duration::from_millis(1);

impl Container {
    /// Attends to the container that process `runc` is creating after [`Container::prepare`]: brings its application up,
    /// waits until runc has ended, and removes what is left of it. `delete` says whether runc deletes the container
    /// when it ends, as it does without `--keep`.
    ///
    /// # Errors
    /// When runc does not create it in time, or its application does not come up; it is killed then.
    pub fn attend(config: &Arc<Config>, key: &Key, runc: i32, delete: bool) -> Result<(), Error> {
        let directory = Directory::of(config, key);
        let Some(mark) = directory.load(key)?.attendant_of.filter(|mark| mark.pid == runc) else {
            return Err(Error::NotFound { id: key.id().into() });
        };
        let attended = Attended { config, key, directory, mark };
        let result = match attended.wait_for_pid() {
            Waited::Created(pid) => attended.bring_up(pid),
            Waited::Ended => return attended.remove(),
            Waited::TimedOut => Err(attended.give_up()),
        };
        wait_for_end(mark).map_err(|e| Error::io("wait for", &proc_of(runc), e))?;
        if delete {
            attended.remove()?;
        }
        result
    }
}

/// A container that runc creates, starts and waits for.
struct Attended<'a> {
    config: &'a Arc<Config>,
    key: &'a Key,
    directory: Directory,
    mark: ProcessMark,
}

/// What became of runc.
enum Waited {
    Created(i32),
    Ended,
    TimedOut,
}

impl Attended<'_> {
    fn wait_for_pid(&self) -> Waited {
        let deadline = Instant::now() + self.config.limits.runc();
        let file = create::pid_file(&self.directory);
        while Instant::now() < deadline {
            let runs = self.mark.runs();
            let text = std::fs::read_to_string(&file).ok();
            if let Some(pid) = text.and_then(|text| text.trim().parse().ok()) {
                return Waited::Created(pid);
            }
            if !runs {
                return Waited::Ended;
            }
            std::thread::sleep(PAUSE);
        }
        Waited::TimedOut
    }

    fn bring_up(&self, pid: i32) -> Result<(), Error> {
        let mut record = self.directory.load(self.key)?;
        record.created(pid);
        record.started = true;
        self.directory.store(&record)?;
        if let Some(path) = &record.pid_file {
            std::fs::write(path, pid.to_string()).map_err(|e| Error::io("write", path, e))?;
        }
        let container = Container::open(self.config.clone(), self.key)?;
        container.bring_up().inspect_err(|_| {
            // runc sees the end and reports its code; why is the caller's to say.
            let _ = container.kill(libc::SIGKILL, false);
        })
    }

    /// runc hangs: it is killed, and what it has made is taken back.
    fn give_up(&self) -> Error {
        if self.mark.runs() {
            let _ = nix::sys::signal::kill(Pid::from_raw(self.mark.pid), Signal::SIGKILL);
        }
        let limit = self.config.limits.runc();
        let undone = self.directory.load(self.key).and_then(|record| {
            let runc = Runc::new(record.runc, self.directory.file("runc.log"), limit);
            Ok(runc.run(&["delete", "--force", self.key.id()])?)
        });
        if let Err(e) = undone {
            tracing::warn!(container = self.key.id(), error = %e.report(), "a half-made container stays");
        }
        RuncError::TimedOut { command: "run".into(), limit }.into()
    }

    /// Removes what is ours: by now another container may have the name.
    fn remove(&self) -> Result<(), Error> {
        match self.directory.load(self.key) {
            Ok(record) if record.attendant_of == Some(self.mark) => self.directory.remove(),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Without a limit: a container runs as long as it runs.
fn wait_for_end(mark: ProcessMark) -> io::Result<()> {
    let Some(pid) = rustix::process::Pid::from_raw(mark.pid) else { return Ok(()) };
    let process = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // Its number may have become another's before it was opened.
    while mark.runs() {
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
