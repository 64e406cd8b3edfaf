//! The seccomp filters of a process, as the kernel runs them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{bail, Context, Result};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use super::host::Host;
use super::sys;

/// No container has more.
const MOST: usize = 32;

/// The filters of the process that is `inner` in the container whose PID 1 the host knows as `first`: the oldest first.
pub fn seccomp_filters(host: &Host, first: i32, inner: i32) -> Result<Vec<Vec<u8>>> {
    of_task(outer_number(host, first, inner)?)
}

/// Those of a thread of that process.
pub fn seccomp_filters_of_thread(host: &Host, first: i32, inner: i32, thread: i32) -> Result<Vec<Vec<u8>>> {
    let process = outer_number(host, first, inner)?;
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        if let Some(task) = number.filter(|_| is_numbered(&path, thread)) {
            return of_task(task);
        }
    }
    bail!("process {inner} has no thread {thread}")
}

fn of_task(pid: i32) -> Result<Vec<Vec<u8>>> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, ptrace::Options::empty()).context("cannot trace it")?;
    let found = ptrace::interrupt(pid).map_err(Into::into).and_then(|()| filters_of(pid));
    ptrace::detach(pid, None).context("cannot let go of it")?;
    found
}

fn filters_of(pid: Pid) -> Result<Vec<Vec<u8>>> {
    match waitpid(pid, Some(WaitPidFlag::__WALL))? {
        WaitStatus::PtraceEvent(_, Signal::SIGTRAP, _) => {}
        other => bail!("it did not stop, but: {other:?}"),
    }
    let mut found = Vec::new();
    while let Some(filter) = sys::seccomp_filter(pid.as_raw(), found.len())? {
        found.push(filter);
        if found.len() == MOST {
            break;
        }
    }
    Ok(found)
}

/// As this machine counts it.
fn outer_number(host: &Host, first: i32, inner: i32) -> Result<i32> {
    let namespace = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let wanted = namespace(&host.outside(&format!("/proc/{first}/ns/pid"))).context("no such container")?;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        let (Some(pid), true) = (number, namespace(&path.join("ns/pid")) == Some(wanted)) else { continue };
        if is_numbered(&path, inner) {
            return Ok(pid);
        }
    }
    bail!("there is no process {inner} in the container")
}

/// Whether the task that `proc` is about has this number in its container.
fn is_numbered(proc: &Path, number: i32) -> bool {
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().next_back() == Some(&number.to_string())
}
