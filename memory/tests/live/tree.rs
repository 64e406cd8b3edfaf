//! A target and its descendants, in a freezer cgroup of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fastmig_memory::Process;

use crate::sys;

/// This test program as the target `role`.
pub(crate) fn target(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["target", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("FASTMIG_MEMORY_TARGET", role);
    command
}

/// A running target. Dropped, it and all that it has made are killed, and the cgroup is removed.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) child: Child,
    output: BufReader<std::process::ChildStdout>,
    cgroup: PathBuf,
    unified: bool,
}

impl Tree {
    pub(crate) fn start(role: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let freezer = PathBuf::from("/sys/fs/cgroup/freezer");
        let unified = !freezer.exists();
        let root = if unified { PathBuf::from("/sys/fs/cgroup") } else { freezer };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = root.join(format!("fastmig-memory-test-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let mut child = target(role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        writeln!(child.stdin.as_ref().unwrap()).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, cgroup, unified }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The next line that it says, behind `>`.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the target has ended");
            if let Some((_, said)) = line.split_once('>') {
                return said.trim().to_owned();
            }
        }
    }

    pub(crate) fn tell(&self) {
        writeln!(self.child.stdin.as_ref().unwrap()).unwrap();
    }

    /// All processes; their inner pids are others than those on the host.
    pub(crate) fn processes(&self) -> Vec<Process> {
        const INNER: i32 = 1_000_000;
        let pids: Vec<i32> = self.pids();
        let parents: BTreeMap<i32, i32> = pids.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
        let inner = |pid: &i32| pid + INNER;
        parents
            .iter()
            .map(|(pid, parent)| Process {
                host: *pid,
                id: inner(pid),
                parent: parents.contains_key(parent).then(|| inner(parent)),
            })
            .collect()
    }

    fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    pub(crate) fn freeze(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.freeze_at_once();
            let frozen = if self.unified {
                fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap().contains("frozen 1")
            } else {
                fs::read_to_string(self.cgroup.join("freezer.state")).unwrap().trim() == "FROZEN"
            };
            if frozen {
                return;
            }
            assert!(Instant::now() < deadline, "the target does not freeze");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// And does not wait until all stand still.
    pub(crate) fn freeze_at_once(&self) {
        let (file, value) = if self.unified { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        fs::write(self.cgroup.join(file), value).unwrap();
    }

    pub(crate) fn thaw(&self) {
        let (file, value) = if self.unified { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        let _ = fs::write(self.cgroup.join(file), value);
    }

    /// Whether the first process lives; with what it has ended otherwise.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the target has ended with {:?}, signal {:?}", status.code(), status.signal());
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.pids().is_empty() && Instant::now() < deadline {
            for pid in self.pids() {
                sys::kill(pid, libc::SIGKILL);
            }
            self.thaw();
            let _ = self.child.try_wait();
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].split(' ').nth(1)?.parse().ok()
}
