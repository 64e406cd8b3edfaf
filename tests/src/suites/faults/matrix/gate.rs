//! What stands before CRIU: it waits until it is let through, so that a fault can strike while CRIU is there and has done
//! nothing yet, or hands CRIU a fault of its own (`tests/programs/src/gate.rs`).

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::apps::container::Container;
use crate::framework::{cgroups, dist, Background, Host};

const BUNDLE: &str = "/usr/lib/fastmig/runtime/criu";
const LIMIT: Duration = Duration::from_secs(30);

/// Puts it before the CRIU of a host.
pub(super) fn install(host: &Host) -> Result<()> {
    let criu = host.outside(BUNDLE);
    let description = criu.join("bundle.json");
    let mut bundle: Value = serde_json::from_slice(&fs::read(&description)?)?;
    let loader = bundle["loader"].as_str().context("a bundle without a loader")?.to_owned();
    if loader == "gate" {
        return Ok(());
    }
    fs::copy(dist::build_test_programs()?, criu.join("gate")).context("cannot copy the gate")?;
    fs::write(criu.join("gate.loader"), loader)?;
    fs::create_dir_all(criu.join("gate.d"))?;
    bundle["loader"] = "gate".into();
    let fresh = criu.join("bundle.json.new");
    fs::write(&fresh, bundle.to_string())?;
    Ok(fs::rename(fresh, description)?)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// That of one container.
pub(super) struct Gate<'a> {
    host: &'a Host,
    inode: String,
}

impl<'a> Gate<'a> {
    pub(super) fn of(container: &'a Container) -> Result<Self> {
        let host = &*container.host;
        let link = format!("/proc/{}/ns/pid", container.status()?.pid);
        let namespace = host.cmd(["readlink", &link]).ok()?;
        Ok(Self { host, inode: namespace.chars().filter(char::is_ascii_digit).collect() })
    }

    fn order(&self, name: &str) -> PathBuf {
        self.host.outside(BUNDLE).join("gate.d").join(format!("{}.{name}", self.inode))
    }

    /// Nobody gets through from here on.
    pub(super) fn close(&self) -> Result<()> {
        Ok(fs::write(self.order("hold"), "")?)
    }

    /// Whoever waits gets through.
    pub(super) fn open(&self) -> Result<()> {
        match fs::remove_file(self.order("hold")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// CRIU gets this fault of its own from here on.
    pub(super) fn inject(&self, fault: Option<u32>) -> Result<()> {
        match fault {
            Some(fault) => Ok(fs::write(self.order("fault"), fault.to_string())?),
            None => Ok(fs::remove_file(self.order("fault"))?),
        }
    }

    /// Waits until somebody waits, while `operation` runs.
    pub(super) fn wait(&self, operation: &mut Background) -> Result<()> {
        self.criu_while(operation).map(drop)
    }

    /// Waits for a CRIU in this container, before or behind the gate, while `operation` runs, and kills it.
    pub(super) fn kill(&self, operation: &mut Background) -> Result<()> {
        let criu = self.criu_while(operation)?;
        // It may have ended just now.
        let _ = kill(criu, Signal::SIGKILL);
        Ok(())
    }

    fn criu_while(&self, operation: &mut Background) -> Result<Pid> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(criu) = self.criu() {
                return Ok(criu);
            }
            if !operation.is_running() || Instant::now() > deadline {
                bail!("no CRIU came");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn criu(&self) -> Option<Pid> {
        let hierarchy = self.host.state.cgroups.first()?;
        let tree = cgroups::tree(&hierarchy.own).into_iter();
        let members = tree.map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default());
        let members = members.collect::<Vec<_>>().join("");
        let all = members.lines().filter_map(|line| line.parse().ok());
        let ours: Vec<i32> = all.filter(|pid| self.is_ours(*pid)).collect();
        // Its helpers are below it.
        let is_first = |pid: &&i32| !parent(**pid).is_some_and(|parent| ours.contains(&parent));
        ours.iter().find(is_first).copied().map(Pid::from_raw)
    }

    fn is_ours(&self, pid: i32) -> bool {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap_or_default();
        command.starts_with(b"/dev/.fastmig/criu/") && namespace.to_string_lossy().contains(&self.inode)
    }
}
