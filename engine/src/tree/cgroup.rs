//! The container's cgroups, and below them one of its own for the application: what pauses and dumps the
//! application leaves the init, exec sessions and CRIU alone.
//!
//! On cgroup v1 it exists in the freezer hierarchy only, so that no other controller sees a difference; on v2
//! it is a plain child without controllers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal, SIGKILL};
use nix::unistd::Pid;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

/// The application's cgroup, below the container's.
const NAME: &str = "fastmig-application";

/// The application's own freezer cgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ApplicationCgroup {
    directory: PathBuf,
    unified: bool,
}

/// All cgroup directories of process `pid`, one for each mounted hierarchy.
pub(crate) fn directories_of(pid: i32) -> io::Result<Vec<PathBuf>> {
    Ok(memberships(pid)?.into_iter().map(|membership| membership.directory).collect())
}

struct Membership {
    directory: PathBuf,
    freezer: bool,
    unified: bool,
}

/// Pairs `/proc/PID/cgroup` with where each hierarchy is mounted here.
fn memberships(pid: i32) -> io::Result<Vec<Membership>> {
    let process = Process::new(pid).map_err(io::Error::other)?;
    let mounts = Process::myself().and_then(|me| me.mountinfo()).map_err(io::Error::other)?;
    let mut found = Vec::new();
    for group in process.cgroups().map_err(io::Error::other)? {
        let unified = group.hierarchy == 0;
        let mount = mounts.0.iter().find(|mount| {
            if unified {
                return mount.fs_type == "cgroup2";
            }
            let has = |option: &str| mount.super_options.contains_key(option);
            mount.fs_type == "cgroup"
                && !group.controllers.is_empty()
                && group.controllers.iter().all(|c| {
                    c.strip_prefix("name=").map_or_else(
                        || has(c),
                        |name| {
                            mount
                                .super_options
                                .get("name")
                                .is_some_and(|value| value.as_deref() == Some(name))
                        },
                    )
                })
        });
        if let Some(mount) = mount {
            // A mount may show a part of the hierarchy only; its root is then a prefix of the path.
            let path =
                group.pathname.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(&group.pathname);
            let directory = mount.mount_point.join(path.trim_start_matches('/'));
            let freezer = group.controllers.iter().any(|c| c == "freezer");
            found.push(Membership { directory, freezer, unified });
        }
    }
    Ok(found)
}

impl ApplicationCgroup {
    /// The application's cgroup in the container whose PID 1 is `init`; it need not exist yet.
    pub(crate) fn of(init: i32) -> io::Result<Self> {
        let all = memberships(init)?;
        let freezer = all.iter().find(|m| m.freezer);
        let chosen = freezer.or_else(|| all.iter().find(|m| m.unified));
        let chosen = chosen.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "neither a freezer nor a cgroup v2 hierarchy")
        })?;
        Ok(Self { directory: chosen.directory.join(NAME), unified: chosen.unified && freezer.is_none() })
    }

    /// Everybody in the container, whose cgroup is above this one: as `runc ps` tells, without a program that takes 10 ms to
    /// start.
    pub(crate) fn pids_around(&self) -> io::Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        let mut waiting: Vec<PathBuf> = self.directory.parent().map(Path::to_path_buf).into_iter().collect();
        while let Some(directory) = waiting.pop() {
            let text = match fs::read_to_string(directory.join("cgroup.procs")) {
                // An exec session's has just gone, or is one of threads.
                Err(e)
                    if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) =>
                {
                    continue
                }
                text => text?,
            };
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            let below = fs::read_dir(&directory)?.flatten();
            waiting.extend(below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        Ok(found)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.directory) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    pub(crate) fn add(&self, pid: i32) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string())
    }

    /// What a process with one thread writes a 0 to, to be in it; none on version 2. Who is moved by somebody else waits for
    /// all processors of the host to have been idle or elsewhere once (an RCU grace period: some 10 ms), and whoever moves
    /// one thread, itself, does not.
    pub(crate) fn entrance(&self) -> io::Result<Option<File>> {
        match self.unified {
            true => Ok(None),
            false => File::options().write(true).open(self.directory.join("tasks")).map(Some),
        }
    }

    /// Takes host process `pid` out of it, into the container's.
    pub(crate) fn leave(&self, pid: i32) -> io::Result<()> {
        let parent = self.directory.parent().ok_or(io::ErrorKind::NotFound)?;
        match fs::write(parent.join("cgroup.procs"), pid.to_string()) {
            // It has just ended.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// The file that says who is in the container's own cgroup: its init is.
    pub(crate) fn members_around(&self) -> Option<PathBuf> {
        self.directory.parent().map(|container| container.join("cgroup.procs"))
    }

    /// Whether the kernel lets a tracer wake what this freezes: on version 1 it does not.
    pub(crate) fn lets_tracers_wake(&self) -> bool {
        self.unified
    }

    /// The host pids in it; none when it does not exist.
    pub(crate) fn pids(&self) -> BTreeSet<i32> {
        fs::read_to_string(self.directory.join("cgroup.procs"))
            .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
            .unwrap_or_default()
    }

    /// Freezes the application; on a time-out it is thawed again and `TimedOut` returned.
    pub(crate) fn freeze(&self, limit: Duration) -> io::Result<()> {
        self.write_state(true)?;
        let deadline = Instant::now() + limit;
        while !self.is_frozen()? {
            if Instant::now() > deadline {
                self.thaw()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(200));
            if !self.unified {
                // v1 gives up on tasks that fork while it freezes; asking again takes them too.
                self.write_state(true)?;
            }
        }
        Ok(())
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        match self.write_state(false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// The file and the value whose writing thaws the application.
    pub(crate) fn thaw_write(&self) -> (PathBuf, &'static str) {
        self.state_write(false)
    }

    fn write_state(&self, frozen: bool) -> io::Result<()> {
        let (file, value) = self.state_write(frozen);
        fs::write(file, value)
    }

    /// The file that freezes and thaws it.
    pub(crate) fn switch(&self) -> PathBuf {
        self.state_write(true).0
    }

    fn state_write(&self, frozen: bool) -> (PathBuf, &'static str) {
        let (file, value) = match (self.unified, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        (self.directory.join(file), value)
    }

    /// Whether it has been told to freeze and not to thaw since; whoever leaves a tracer is frozen a moment later only.
    pub(crate) fn holds(&self) -> io::Result<bool> {
        let file = if self.unified { "cgroup.freeze" } else { "freezer.self_freezing" };
        Ok(fs::read_to_string(self.directory.join(file))?.trim() == "1")
    }

    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        if self.unified {
            let events = fs::read_to_string(self.directory.join("cgroup.events"))?;
            return Ok(events.lines().any(|line| line == "frozen 1"));
        }
        Ok(fs::read_to_string(self.directory.join("freezer.state"))?.trim() == "FROZEN")
    }

    /// Kills every process in it, frozen or not, and waits until none is left. Whoever comes next does not find it frozen.
    pub(crate) fn kill_all(&self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if self.pids().is_empty() {
                return self.thaw();
            }
            self.signal_all(SIGKILL);
            self.thaw()?;
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// [`ApplicationCgroup::kill_all`] for what must not run, also not for the moment between the end of whoever traces it and
    /// its own: stopped by a tracer, it would go on with that.
    pub(crate) fn kill_before_it_runs(&self, limit: Duration) -> io::Result<()> {
        match self.write_state(true) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            frozen => frozen?,
        }
        // It need not stand still yet: each comes by the freezer before it goes on, and by its SIGKILL when thawed.
        self.kill_all(limit)
    }

    pub(crate) fn signal_all(&self, signal: Signal) {
        for pid in self.pids() {
            // ESRCH: it has just ended.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup of the test's own; nothing where none can be made.
    fn cgroup(name: &str) -> Option<ApplicationCgroup> {
        let me = i32::try_from(std::process::id()).unwrap();
        let of_me = ApplicationCgroup::of(me).ok()?;
        let directory = of_me.directory.with_file_name(format!("fastmig-test-{name}-{me}"));
        let cgroup = ApplicationCgroup { directory, ..of_me };
        match cgroup.make() {
            Ok(()) => Some(cgroup),
            Err(e) => {
                eprintln!("skipped: no cgroup can be made here: {e}");
                None
            }
        }
    }

    #[test]
    fn who_comes_after_a_kill_is_not_frozen() {
        let Some(cgroup) = cgroup("empty") else { return };
        // As it is when frozen processes were killed by somebody else.
        cgroup.write_state(true).unwrap();
        assert!(cgroup.holds().unwrap());
        cgroup.kill_all(Duration::from_secs(5)).unwrap();
        let frozen = cgroup.is_frozen().unwrap() || cgroup.holds().unwrap();
        cgroup.remove().unwrap();
        assert!(!frozen);
    }
}
