//! Processes of a host, killed by what they were started as.

use anyhow::{Context, Result};

use super::host::Host;

/// `$1` is how a command line begins. Fails when nobody has such a one.
const KILL: &str = "killed=1
for dir in /proc/[0-9]*; do
  line=$(tr '\\0' ' ' <$dir/cmdline 2>/dev/null)
  case $line in \"$1\"*) kill -9 ${dir#/proc/} && killed=0 ;; esac
done
exit $killed";

/// The loader that every CRIU of ours in a container is started by.
const CRIU: &str = "/dev/.fastmig/criu/";

impl Host {
    /// Kills all whose command line begins so; there is one at least.
    pub fn kill_started_as(&self, beginning: &str) -> Result<()> {
        let killed = self.cmd(["sh", "-c", KILL, "sh", beginning]).ok();
        killed.map(drop).with_context(|| format!("nobody was there that is {beginning:?}"))
    }

    /// Kills every CRIU that waits inside a container.
    pub fn kill_criu(&self) -> Result<()> {
        self.kill_started_as(CRIU).context("no CRIU was there to be killed")
    }
}
