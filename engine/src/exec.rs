//! What happens beside the application: exec sessions, limits, the list of processes.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::runc::{read_pid, Gifts, StdioFds};
use crate::state::Key;
use crate::tree::apparmor;
use crate::{ApplicationState, Container, Error};

/// What a process beside the application is made from.
#[derive(Debug)]
pub struct ExecRequest {
    /// Its name.
    pub exec_id: String,
    /// The OCI process, JSON.
    pub process_json: Vec<u8>,
    /// Its standard streams.
    pub stdio: StdioFds,
    /// Where runc sends the terminal's master, when the process asks for a terminal.
    pub console_socket: Option<PathBuf>,
}

impl Container {
    /// Starts a process beside the application; returns its host pid. It is a child of the caller's subreaper.
    ///
    /// # Errors
    /// When runc fails.
    pub fn exec(&self, request: ExecRequest) -> Result<i32, Error> {
        let record = self.directory.load(&self.key)?;
        self.make_room_for_session()?;
        let name = Key::new("exec", &request.exec_id)?;
        let process = self.directory.file(&format!("exec-{}.json", name.id()));
        let pid_file = self.directory.file(&format!("exec-{}.pid", name.id()));
        let content = self.confined(&request.process_json);
        std::fs::write(&process, content).map_err(|e| Error::io("write", &process, e))?;
        let mut arguments: Vec<OsString> = vec!["exec".into(), "--detach".into()];
        arguments.extend(["--process".into(), process.clone().into()]);
        arguments.extend(["--pid-file".into(), pid_file.clone().into()]);
        if let Some(socket) = &request.console_socket {
            arguments.extend(["--console-socket".into(), socket.into()]);
        }
        arguments.push(self.key.id().into());
        let gifts = Gifts { stdio: request.stdio, preserved: Vec::new() };
        let result = self.runc(&record).run_with(&arguments, gifts).map_err(Error::from);
        let pid = result.and_then(|()| Ok(read_pid(&pid_file, "exec")?));
        for file in [&process, &pid_file] {
            // Left-overs go with the directory.
            let _ = std::fs::remove_file(file);
        }
        pid
    }

    /// The OCI process `json`, under the profile that applications of this container have, unless it brings its own.
    /// What is no OCI process is runc's to refuse.
    #[must_use]
    pub fn confined<'a>(&self, json: &'a [u8]) -> Cow<'a, [u8]> {
        let profile = self.session_profile();
        profile.and_then(|profile| under(profile, json)).map_or(Cow::Borrowed(json), Cow::Owned)
    }

    /// The AppArmor profile that runc must be told for a session, where it would give it the init's.
    #[must_use]
    pub fn session_profile(&self) -> Option<&'static str> {
        apparmor::for_session(self.pid()).filter(|_| self.is_warm())
    }

    /// Lets a process that is about to be started beside the application have a pid that no restore needs.
    ///
    /// # Errors
    /// When the init does not answer.
    pub fn make_room_for_session(&self) -> Result<(), Error> {
        // In standby nothing of the application forks, so this cannot race with it.
        if self.is_warm() && self.application()? == ApplicationState::Standby {
            self.set_last_pid(1)?;
        }
        Ok(())
    }

    /// Changes the container's limits.
    ///
    /// # Errors
    /// When runc fails.
    pub fn update(&self, resources_json: &[u8]) -> Result<(), Error> {
        let operation = self.begin()?;
        let file = self.directory.file("resources.json");
        std::fs::write(&file, resources_json).map_err(|e| Error::io("write", &file, e))?;
        let path = file.to_string_lossy().into_owned();
        self.runc(&operation.record).run(&["update", "--resources", &path, self.key.id()])?;
        Ok(())
    }

    /// Host pids of every process in it.
    ///
    /// # Errors
    /// When runc fails.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let record = self.directory.load(&self.key)?;
        let text = self.runc(&record).run(&["ps", "--format", "json", self.key.id()])?;
        let pids: Option<Vec<i32>> = serde_json::from_str(&text).map_err(|source| Error::State {
            id: self.key.id().into(),
            path: "runc ps".into(),
            source,
        })?;
        Ok(pids.unwrap_or_default())
    }
}

/// The OCI process `json` with this AppArmor profile; nothing when it has its own, or is none.
fn under(profile: &str, json: &[u8]) -> Option<Vec<u8>> {
    const KEY: &str = "apparmorProfile";
    let mut process: Map<String, Value> = serde_json::from_slice(json).ok()?;
    if process.get(KEY).and_then(Value::as_str).is_some_and(|own| !own.is_empty()) {
        return None;
    }
    process.insert(KEY.into(), profile.into());
    serde_json::to_vec(&process).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_brings_no_profile_gets_one() {
        let found = under("c", br#"{"args":["sh"],"apparmorProfile":"","new":1}"#).unwrap();
        assert_eq!(found, br#"{"args":["sh"],"apparmorProfile":"c","new":1}"#);
        assert_eq!(under("c", br#"{"args":["sh"]}"#).unwrap(), br#"{"args":["sh"],"apparmorProfile":"c"}"#);
        assert_eq!(under("c", br#"{"apparmorProfile":"own"}"#), None);
        assert_eq!(under("c", b"[]"), None);
    }
}
