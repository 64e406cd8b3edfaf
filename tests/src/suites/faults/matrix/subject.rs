//! An application, and the two containers that it can be in.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use super::phases::Phase;
use crate::apps::container::{Container, Setup};
use crate::framework::image::programs;
use crate::framework::process::wait_until;
use crate::framework::Host;

/// What should happen soon, on a machine that others use too.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Subject {
    ends: [Container; 2],
    /// Where it is.
    at: usize,
    name: String,
    phase: Phase,
    /// The fault that is being tried.
    fault: String,
    /// What it has in its memory.
    mark: String,
    /// What was known of each end before the fault.
    before: [Told; 2],
}

/// What its status tells of the past.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Told {
    pub(super) decision: Value,
    pub(super) failure: Value,
}

impl Subject {
    pub(super) fn begin(a: &Arc<Host>, b: &Arc<Host>, phase: Phase) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{number}");
        let ends = [
            Container::run(a, &format!("{name}-a"), &setup())?,
            Container::run(b, &format!("{name}-b"), &setup().in_standby())?,
        ];
        for host in [a, b] {
            host.cmd(["mkdir", "-p", "-m", "700", "/var/tmp/table"]).ok()?;
        }
        let (fault, mark, before) = (String::new(), "nothing".into(), Default::default());
        let mut subject = Self { ends, at: 0, name, phase, fault, mark, before };
        subject.answers().context("it does not come up")?;
        subject.mark()?;
        Ok(subject)
    }

    pub(super) fn end(self) -> Result<()> {
        for end in self.ends {
            end.host.sh(&format!("rm -rf /var/tmp/table/{}*", self.name)).ok()?;
            end.remove()?;
        }
        Ok(())
    }

    pub(super) fn source(&self) -> &Container {
        &self.ends[self.at]
    }

    pub(super) fn destination(&self) -> &Container {
        &self.ends[1 - self.at]
    }

    /// Where its checkpoint stands.
    pub(super) fn image(&self) -> String {
        format!("/var/tmp/table/{}", self.name)
    }

    /// This fault is tried from here on.
    pub(super) fn of(&mut self, fault: &str) {
        self.fault = fault.into();
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is being tried.
    pub(super) fn fault(&self) -> &str {
        &self.fault
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// What it has in its memory, if nothing has gone wrong.
    pub(super) fn marked(&self) -> &str {
        &self.mark
    }

    /// What was known of the end where it is, before the fault.
    pub(super) fn before(&self) -> &Told {
        &self.before[self.at]
    }

    /// What is known now is the past.
    pub(super) fn take_for_past(&mut self) -> Result<()> {
        self.before[self.at] = self.told()?;
        self.before[1 - self.at] = told(self.destination()).unwrap_or_default();
        Ok(())
    }

    /// Gives it something to remember, and takes what is known now for the past.
    pub(super) fn mark(&mut self) -> Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.mark = format!("mark{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.tell(&format!("remember {}", self.mark))?;
        ensure!(self.answers()? == self.mark, "it forgets");
        self.take_for_past()
    }

    /// Has it checkpointed, and in standby: what a restore needs.
    pub(super) fn stand_by(&mut self) -> Result<()> {
        let path = self.image();
        self.source().host.cmd(["rm", "-rf", &path]).ok()?;
        self.source().checkpoint(&path)?;
        self.take_for_past()
    }

    /// Has it ready for the phase: running with something in its memory, or in standby with a checkpoint of that.
    pub(super) fn ready(&mut self, phase: Phase) -> Result<()> {
        self.mark()?;
        if phase == Phase::Restoring {
            self.stand_by()?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> Result<std::path::PathBuf> {
        let pid = self.source().status()?.pid;
        Ok(self.source().host.outside(&format!("/proc/{pid}/root/dev/{name}")))
    }

    /// Lets it do this next.
    pub(super) fn tell(&self, how: &str) -> Result<()> {
        let (fresh, path) = (self.file("how.new")?, self.file("how")?);
        fs::write(&fresh, how)?;
        Ok(fs::rename(fresh, path)?)
    }

    /// Lets it end with code 3 as soon as it runs, or no longer. The host name is the container's, and is in no checkpoint.
    pub(super) fn let_leave(&self, leave: bool) -> Result<()> {
        let pid = self.source().status()?.pid.to_string();
        let name = if leave { "leave" } else { "stay" };
        self.source().host.cmd(["nsenter", "-t", &pid, "-u", "hostname", name]).ok().map(drop)
    }

    /// What it has in its memory, by its own word.
    pub(super) fn answers(&self) -> Result<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let question = format!("question{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.tell(&format!("answer {question}"))?;
        let question = format!("{question}=");
        let mut answer = String::new();
        wait_until(SOON, || {
            let said = self.source().output().map(|said| String::from_utf8_lossy(&said).into_owned());
            let said = said.unwrap_or_default();
            let line = said.lines().find_map(|line| line.strip_prefix(question.as_str()));
            line.map(|line| line.clone_into(&mut answer)).is_some()
        })
        .context("it does not answer")?;
        Ok(answer)
    }

    /// Its processes, as this machine counts them.
    pub(super) fn processes(&self) -> Result<Vec<Pid>> {
        let host = &self.source().host;
        let path = format!("/run/fastmig/default/{}/state.json", self.source().id());
        let state: Value = serde_json::from_slice(&fs::read(host.outside(&path))?)?;
        let directory = state["cgroup"]["directory"].as_str().context("it has no cgroup")?;
        let members = fs::read_to_string(host.outside(directory).join("cgroup.procs")).unwrap_or_default();
        Ok(members.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect())
    }

    /// Sends a signal to all of it.
    pub(super) fn signal(&self, number: i32) -> Result<()> {
        for process in self.processes()? {
            send(process, number);
        }
        Ok(())
    }

    /// What its status tells.
    pub(super) fn status(&self) -> Result<Value> {
        self.source().operate("status", &[])
    }

    pub(super) fn told(&self) -> Result<Told> {
        told(self.source())
    }

    /// What it was told and has not heard is not told any more.
    pub(super) fn forget(&self) -> Result<()> {
        for end in &self.ends {
            let pid = end.status()?.pid;
            match fs::remove_file(end.host.outside(&format!("/proc/{pid}/root/dev/how"))) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// It is at the other end now.
    pub(super) fn has_moved(&mut self) {
        self.at = 1 - self.at;
    }

    /// How both ends stand, for whoever looks for what went wrong.
    pub(super) fn describe(&self) -> String {
        let status = |end: &Container| match end.operate("status", &[]) {
            Ok(status) => status.to_string(),
            Err(e) => format!("{e:#}"),
        };
        let output = self.source().output().unwrap_or_default();
        let output = String::from_utf8_lossy(&output).into_owned();
        let last: Vec<&str> = output.lines().rev().take(5).collect();
        let [source, destination] = [self.source(), self.destination()].map(status);
        format!("source {source}\ndestination {destination}\nits output ends {last:?}")
    }
}

fn told(end: &Container) -> Result<Told> {
    let status = end.operate("status", &[])?;
    Ok(Told { decision: status["policy"]["last"].clone(), failure: status["last_failure"].clone() })
}

/// A signal by its number, those without a name included; the process may be gone.
pub(super) fn send(process: Pid, number: i32) {
    match Signal::try_from(number) {
        Ok(signal) => drop(kill(process, signal)),
        Err(_) => drop(
            std::process::Command::new("kill").arg(format!("-{number}")).arg(process.to_string()).status(),
        ),
    }
}

fn setup() -> Setup {
    let options = ["--memory-limit", "67108864", "--annotation", "fastmig.dev/policy=table"];
    Setup::of(programs::NAME).with(options).running([programs::PROGRAM, "obey"])
}
