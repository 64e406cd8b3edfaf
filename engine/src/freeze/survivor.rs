//! A small process that outlives ours: when our end of its pipe closes unsaid, it does to the application what must be done
//! should we be killed.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};

use crate::tree::cgroup::ApplicationCgroup;

/// Such a process. Dropped, nothing is to be done any more.
#[derive(Debug)]
pub(crate) struct Survivor {
    process: Child,
}

impl Survivor {
    /// Runs a shell script, under this name and with these descriptors. `$1` is the file that thaws the application when `$2` is
    /// written to it; the script's `read` fails at the end of the pipe, which the kernel brings about whatever kills us.
    pub(crate) fn start(
        name: &str,
        script: &str,
        cgroup: &ApplicationCgroup,
        descriptors: Vec<FdMapping>,
    ) -> io::Result<Self> {
        let (file, value) = cgroup.thaw_write();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script, name])
            .arg(file)
            .arg(value)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // what kills our group leaves it alone
            .fd_mappings(descriptors)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { process: command.spawn()? })
    }

    /// Says a line to it.
    pub(crate) fn tell(&mut self, line: &[u8]) -> io::Result<()> {
        let pipe = self.process.stdin.as_mut();
        pipe.map_or(Err(io::ErrorKind::BrokenPipe.into()), |pipe| pipe.write_all(line))
    }
}

impl Drop for Survivor {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.process.stdin.take() {
            // EPIPE: it is gone already.
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.process.wait();
    }
}
