//! What both ends of a migration compare before anything stops.
//!
//! The source describes the application and what it needs; the destination says all that stands in the way at once, each
//! with what would make it possible. A passport is a peer's word: it is read within limits, and decides nothing but
//! whether to go on.
//!
//! | file | what it compares |
//! |---|---|
//! | `machine` | processor, CRIU, FastMig |
//! | `privileges` | capabilities, seccomp, limits, users |
//! | `root` | the image, the mounts, and whether what is not in them travels |
//! | `files` | the files that the application has open or mapped and that do not travel |
//! | `room` | memory, disk, tasks |
//! | `ports` | addresses and ports that it listens on |

mod files;
mod machine;
mod ports;
mod privileges;
mod room;
mod root;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use fastmig_rootfs::Survey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::{Finding, Severity};
use crate::start_options::{Binds, TcpPolicy, Volumes};
use crate::state::{ApplicationState, Record};
use crate::tree::application;
use crate::{recipient, Container, Error};

/// The version of the passport that this code writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// No passport is longer, written as JSON.
pub const LONGEST: usize = 8 << 20;

/// How many of a kind are named.
const NAMED: usize = 5;

/// What is to travel, where it is not as the container's creator decided.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The volumes.
    pub volumes: Option<Volumes>,
    /// What becomes of established TCP connections.
    pub tcp: Option<TcpPolicy>,
    /// What becomes of directories of the host that the application may write to.
    pub binds: Option<Binds>,
    /// Those of them that are said to be the same on the other host.
    pub same: Vec<PathBuf>,
}

/// What the destination must know of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passport {
    /// [`FORMAT`].
    pub format: u32,
    /// The application's command, for messages.
    pub command: Vec<String>,
    /// Every pid, thread id, group and session that it has now.
    pub pids: BTreeSet<i32>,
    /// Whether it has a terminal.
    pub terminal: bool,
    machine: machine::Machine,
    privileges: privileges::Privileges,
    root: root::Root,
    files: BTreeSet<files::Used>,
    room: room::Needs,
    ports: ports::Ports,
}

/// One thing that stands in the way of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What it is.
    pub cause: String,
    /// What would make it possible.
    pub remedy: String,
}

/// All that stands in the way.
#[must_use]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reasons(pub Vec<Reason>);

impl Reasons {
    fn add(&mut self, cause: impl Into<String>, remedy: impl Into<String>) {
        let reason = Reason { cause: printable(&cause.into()), remedy: printable(&remedy.into()) };
        if !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }

    /// What could not be found out is one, too.
    fn take<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|e| self.add(e.report(), "remove the cause and try again")).ok()
    }

    fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(self)
        }
    }
}

/// A peer's words are in it: they neither fill a terminal nor steer it.
fn printable(text: &str) -> String {
    /// More than a reason of ours needs.
    const LONGEST: usize = 2000;
    text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.0.iter().map(|reason| format!("{}: {}", reason.cause, reason.remedy));
        f.write_str(&texts.collect::<Vec<_>>().join("; "))
    }
}

impl std::error::Error for Reasons {}

impl From<Finding> for Reason {
    fn from(finding: Finding) -> Self {
        Self { cause: finding.cause, remedy: finding.remedy }
    }
}

impl Passport {
    /// Reads one that a peer has sent.
    ///
    /// # Errors
    /// When it is of another format, too long, or makes no sense.
    pub fn read(value: &Value) -> Result<Self, PassportError> {
        let found = value["format"].as_u64().unwrap_or_default();
        if found != u64::from(FORMAT) {
            return Err(PassportError::Format { found });
        }
        let passport = Self::deserialize(value).map_err(PassportError::Syntax)?;
        match passport.excess() {
            Some(what) => Err(PassportError::Limit { what }),
            None => Ok(passport),
        }
    }

    /// As [`Passport::read`], from its text.
    ///
    /// # Errors
    /// As [`Passport::read`].
    pub fn parse(text: &[u8]) -> Result<Self, PassportError> {
        if text.len() > LONGEST {
            return Err(PassportError::Limit { what: "text" });
        }
        Self::read(&serde_json::from_slice(text).map_err(PassportError::Syntax)?)
    }

    /// As it is sent.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // Strings and numbers under keys that are strings: nothing that JSON has not.
        serde_json::to_value(self).unwrap_or_default()
    }

    fn excess(&self) -> Option<&'static str> {
        /// More processes and threads than a kernel numbers.
        const MOST_PIDS: usize = 1 << 22;
        if self.pids.len() > MOST_PIDS || self.pids.first().is_some_and(|&pid| pid <= 0) {
            return Some("pids");
        }
        let parts = [
            (self.files.len() > files::MOST, "files"),
            (self.root.is_excessive(), "root"),
            (self.ports.is_excessive(), "ports"),
            (self.room.is_excessive(), "room"),
        ];
        parts.into_iter().find_map(|(too_long, what)| too_long.then_some(what))
    }
}

/// Why a text is no passport.
#[derive(Debug, thiserror::Error)]
pub enum PassportError {
    /// It is another version's.
    #[error("the passport has format {found}, this FastMig reads {FORMAT}: install the same version on both hosts")]
    Format {
        /// Its format.
        found: u64,
    },
    /// It is no passport at all.
    #[error("the passport is damaged")]
    Syntax(#[source] serde_json::Error),
    /// One of its parts is beyond all measure.
    #[error("the passport is refused: its {what} has more entries than an application can have, or one that makes no sense")]
    Limit {
        /// The part.
        what: &'static str,
    },
}

/// The source, looked at.
struct Source<'a> {
    container: &'a Container,
    record: &'a Record,
    processes: BTreeSet<i32>,
    /// What they have open or mapped, by its path in the container.
    used: BTreeMap<PathBuf, PathBuf>,
    survey: Survey,
    tcp: TcpPolicy,
    binds: Binds,
    same: &'a [PathBuf],
}

/// The destination, looked at.
struct Destination<'a> {
    container: &'a Container,
    record: &'a Record,
    survey: Survey,
}

impl Container {
    /// What another host must know of this container's application before anything stops.
    ///
    /// # Errors
    /// When it cannot leave, for all reasons that are found here.
    pub fn passport(&self, request: &Request) -> Result<Passport, Error> {
        let record = self.directory.load(&self.key)?;
        let mut reasons = self.blockers(request)?;
        let volumes = request.volumes.as_ref().unwrap_or(&record.volumes);
        let processes = self.application_cgroup()?.pids();
        let source = Source {
            container: self,
            record: &record,
            used: files::of(&processes),
            processes,
            survey: Survey::of(self.pid(), volumes)?,
            tcp: request.tcp.unwrap_or(record.tcp),
            binds: request.binds.unwrap_or(record.binds),
            same: &request.same,
        };
        let passport = Passport {
            format: FORMAT,
            command: record.command.clone(),
            pids: application::inner_numbers(&source.processes),
            terminal: record.terminal,
            machine: machine::Machine::of(self)?,
            privileges: privileges::Privileges::of(&source.processes),
            root: root::Root::of(&source, &mut reasons)?,
            files: files::used(&source, &mut reasons),
            room: room::Needs::of(&source)?,
            ports: ports::Ports::of(&source),
        };
        let id = self.key.id().to_owned();
        reasons.into_result().map_err(|reasons| Error::CannotLeave { id, reasons })?;
        Ok(passport)
    }

    /// What makes a checkpoint fail makes a migration fail.
    fn blockers(&self, request: &Request) -> Result<Reasons, Error> {
        let findings = self.check_for(request.tcp)?;
        let blockers = findings.into_iter().filter(|finding| finding.severity == Severity::Blocker);
        Ok(Reasons(blockers.map(Reason::from).collect()))
    }

    /// Whether the application that `passport` describes can live in this container.
    ///
    /// # Errors
    /// All reasons why not, each with what would make it possible.
    pub fn check_passport(&self, passport: &Passport) -> Result<(), Reasons> {
        let mut reasons = Reasons::default();
        let Some(record) = reasons.take(self.directory.load(&self.key)) else { return Err(reasons) };
        let state = reasons.take(self.status()).map(|status| status.application);
        if state != Some(ApplicationState::Standby) {
            let state = state.map_or("unknown".into(), |state| state.to_string());
            let id = self.key.id();
            reasons.add(
                format!("the application of {id:?} is {state}"),
                format!("bring the container into standby (fastmig standby {id}), or name another one"),
            );
            return Err(reasons);
        }
        let volumes = crate::root_files::filled(&record.volumes);
        passport.machine.check(self, &mut reasons);
        passport.check_numbers(self, &record, &mut reasons);
        passport.privileges.check(self, &mut reasons);
        passport.ports.check(self, &mut reasons);
        let survey = reasons.take(Survey::of(self.pid(), &volumes).map_err(Error::from));
        if let Some(survey) = survey {
            let here = Destination { container: self, record: &record, survey };
            passport.root.check(&here, &mut reasons);
            files::check(&passport.files, &here, &mut reasons);
            passport.room.check(&here, &mut reasons);
        }
        reasons.into_result()
    }
}

impl Passport {
    /// Pids and the terminal.
    fn check_numbers(&self, container: &Container, record: &Record, reasons: &mut Reasons) {
        if let Some(taken) = reasons.take(recipient::taken_numbers(container, &self.pids)) {
            for (pid, command) in taken.into_iter().take(NAMED) {
                reasons.add(
                    format!("pid {pid}, which the application has, is taken in the container by {command:?}"),
                    "end that process (an exec session?)",
                );
            }
        }
        let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok();
        let most = most.and_then(|text| text.trim().parse::<i32>().ok()).unwrap_or(i32::MAX);
        if let Some(highest) = self.pids.last().filter(|pid| **pid >= most) {
            reasons.add(
                format!("the application has pid {highest}, this kernel counts to {most}"),
                format!("set sysctl kernel.pid_max={} here", i64::from(*highest) + 1),
            );
        }
        if self.terminal != record.terminal {
            let word = |with: bool| if with { "a terminal" } else { "no terminal" };
            reasons.add(
                format!(
                    "the application has {}, the container has {}",
                    word(self.terminal),
                    word(record.terminal)
                ),
                "create it alike (-t)",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn passport() -> Value {
        json!({
            "format": FORMAT, "command": ["redis-server"], "pids": [1001, 1002], "terminal": false,
            "machine": { "architecture": "x86_64", "cpu_features": [], "kernel": "6.1", "criu": "4.2", "fastmig": "0" },
            "privileges": { "capabilities": [], "bounding": [], "no_new_privs": true, "seccomp": 2, "limits": {}, "users": "" },
            "root": { "image": null, "tops": null, "mounts": [] },
            "files": [{ "path": "/bin/redis-server", "directory": false, "content": [3, "00"] }],
            "room": { "memory": 1, "tasks": 1, "files": { "/": 1 } },
            "ports": { "held": [["tcp", "0.0.0.0:6379"]], "addresses_move": false },
        })
    }

    fn told(change: impl FnOnce(&mut Value)) -> Result<Passport, String> {
        let mut value = passport();
        change(&mut value);
        Passport::read(&value).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_sent_is_read_again() {
        let passport = told(|_| {}).unwrap();
        assert_eq!(Passport::read(&passport.to_value()).unwrap(), passport);
        assert_eq!(Passport::parse(passport.to_value().to_string().as_bytes()).unwrap(), passport);
    }

    #[test]
    fn what_no_source_sends_is_refused() {
        assert!(told(|v| v["format"] = json!(2)).unwrap_err().contains("format 2"));
        assert!(told(|v| v["more"] = json!(1)).unwrap_err().contains("damaged"));
        assert!(told(|v| v["root"]["more"] = json!(1)).unwrap_err().contains("damaged"));
        assert!(told(|v| v["pids"] = json!([0])).unwrap_err().contains("pids"));
        let mount = json!({ "at": "data", "kind": "volume", "identity": null });
        assert!(told(|v| v["root"]["mounts"] = json!([mount])).unwrap_err().contains("root"));
        assert!(Passport::parse(&vec![b' '; LONGEST + 1]).unwrap_err().to_string().contains("text"));
    }

    #[test]
    fn reasons_are_told_once_each_with_its_remedy() {
        let mut reasons = Reasons::default();
        for _ in 0..2 {
            reasons.add("it rains", "take an umbrella");
        }
        assert_eq!(reasons.to_string(), "it rains: take an umbrella");
        reasons.add("a peer's \u{1b}[2Jwords\n", "x".repeat(5000));
        assert_eq!(reasons.0[1].cause, "a peer's ?[2Jwords?");
        assert_eq!(reasons.0[1].remedy.len(), 2000);
        assert!(reasons.into_result().is_err());
        assert!(Reasons::default().into_result().is_ok());
    }

    proptest! {
        /// Whatever becomes of a passport: it is refused, or reads the same once more.
        #[test]
        fn no_changed_passport_is_too_strange(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut text = passport().to_string().into_bytes();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            if let Ok(read) = Passport::parse(&text) {
                prop_assert_eq!(Passport::read(&read.to_value()).unwrap(), read);
            }
        }
    }
}
