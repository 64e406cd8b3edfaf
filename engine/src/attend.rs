//! Where runc itself creates, starts and waits in one command (`runc run` in the foreground), somebody else must bring
//! the application up and clear away: a process that attends runc's from beside it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::container::proc_of;
use crate::state::{Directory, Key};
use crate::{application, create, Config, Container, Error};

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
        let Some(began) = application::start_time(runc) else { return directory.remove() };
        let runs = || application::start_time(runc) == Some(began) && !application::is_zombie(runc);
        let Some(pid) = wait_for_pid(&create::pid_file(&directory), config.limits.runc(), &runs) else {
            return directory.remove();
        };
        let result = bring_up(config, key, &directory, pid);
        if result.is_err() {
            // runc sees the end and reports its code; why is the caller's to say.
            let _ = Container::open(config.clone(), key).and_then(|c| c.kill(libc::SIGKILL, false));
        }
        wait_for_end(runc).map_err(|e| Error::io("wait for", &proc_of(runc), e))?;
        if delete {
            directory.remove()?;
        }
        result
    }
}

fn bring_up(config: &Arc<Config>, key: &Key, directory: &Directory, pid: i32) -> Result<(), Error> {
    let mut record = directory.load(key)?;
    record.created(pid);
    record.started = true;
    directory.store(&record)?;
    if let Some(path) = &record.pid_file {
        std::fs::write(path, pid.to_string()).map_err(|e| Error::io("write", path, e))?;
    }
    Container::open(config.clone(), key)?.bring_up()
}

/// Without a limit: a container runs as long as it runs.
fn wait_for_end(pid: i32) -> io::Result<()> {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(()) };
    let process = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    loop {
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn wait_for_pid(file: &Path, limit: Duration, runs: &dyn Fn() -> bool) -> Option<i32> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        let alive = runs();
        let text = std::fs::read_to_string(file).ok();
        if let Some(pid) = text.and_then(|text| text.trim().parse().ok()) {
            return Some(pid);
        }
        if !alive {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
    None
}
