//! Whoever freezes an application may be killed before it thaws it. This thaws it then.

use std::io;

use crate::freeze::survivor::Survivor;
use crate::tree::cgroup::ApplicationCgroup;

/// A small process that outlives ours: when our end of its pipe closes unsaid after it was armed, it thaws the application.
/// Dropped, the application is thawed or ended by now, or stays paused on purpose.
#[derive(Debug)]
pub(crate) struct Watchdog(Survivor);

/// `read` fails at the end of the pipe, which the kernel brings about whatever kills us. A CRIU that has dumped leaves its
/// tasks stopped.
const SCRIPT: &str = r#"read -r armed || exit 0
read -r done || {
    while read -r pid; do kill -CONT "$pid"; done < "${1%/*}/cgroup.procs"
    echo "$2" > "$1"
}"#;

impl Watchdog {
    /// Starts what will watch over `cgroup`, and does nothing yet.
    pub(crate) fn start(cgroup: &ApplicationCgroup) -> io::Result<Self> {
        Survivor::start("fastmig-watchdog", SCRIPT, cgroup, Vec::new()).map(Self)
    }

    /// Watches from here on; to be called before the freeze.
    pub(crate) fn arm(&mut self) -> io::Result<()> {
        self.0.tell(b"armed\n")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// The script against a plain file: it must write only when the pipe closes unsaid.
    fn watch(said: &[u8], processes: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("freezer.state");
        std::fs::write(directory.path().join("cgroup.procs"), processes).unwrap();
        std::fs::write(&file, "").unwrap();
        let mut process = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "x"])
            .arg(&file)
            .arg("THAWED")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(said).unwrap();
        process.wait().unwrap();
        std::fs::read_to_string(file).unwrap()
    }

    #[test]
    fn it_thaws_only_when_its_master_died() {
        assert_eq!(watch(b"armed\n", ""), "THAWED\n");
        assert_eq!(watch(b"armed\ndone\n", ""), "");
        assert_eq!(watch(b"", ""), "");
    }

    #[test]
    fn whom_criu_has_stopped_goes_on() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(sleeper.id()).unwrap();
        let process = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(process, nix::sys::signal::SIGSTOP).unwrap();
        let state = || procfs::process::Process::new(pid).unwrap().stat().unwrap().state;
        while state() != 'T' {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        watch(b"armed\n", &format!("{pid}\n"));
        // On its way to sleep it still runs.
        assert_ne!(state(), 'T');
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
