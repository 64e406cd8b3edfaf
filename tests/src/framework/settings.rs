//! FastMig's settings in a host, and hooks in them.

use anyhow::Result;

use super::host::Host;

const FILE: &str = "/etc/fastmig/config.toml";

/// Every stage.
pub const STAGES: [&str; 5] = ["pre-checkpoint", "post-checkpoint", "pre-restore", "post-restore", "aborted"];

/// The settings of a host while this lives; the built-in ones afterwards. A daemon that runs is started anew for them.
#[derive(Debug)]
pub struct Settings<'a>(&'a Host);

impl<'a> Settings<'a> {
    /// These settings.
    pub fn new(host: &'a Host, text: &str) -> Result<Self> {
        let settings = Self(host);
        host.write_file(FILE, text)?;
        settings.tell_daemon()?;
        Ok(settings)
    }

    fn tell_daemon(&self) -> Result<()> {
        if self.0.fastmigd_get("/healthz").is_ok() {
            self.0.stop_fastmigd()?;
            self.0.start_fastmigd()?;
        }
        Ok(())
    }
}

impl Drop for Settings<'_> {
    fn drop(&mut self) {
        // A host that is gone has no settings either.
        let _ = self.0.cmd(["rm", "-f", FILE]).output();
        let _ = self.tell_daemon();
    }
}

/// A hook at one stage.
pub fn hook(when: &str, command: &[&str], rest: &str) -> String {
    format!("[[hook]]\nwhen = {when:?}\ncommand = {command:?}\n{rest}\n")
}

/// The same command at every stage, as the hooks that come with FastMig want it.
pub fn at_every_stage(command: &[&str]) -> String {
    STAGES.map(|when| hook(when, command, "")).concat()
}

/// What a hook is told, for one that is called by hand.
pub fn facts(stage: &str, direction: &str) -> String {
    format!(
        "{{\"version\":1,\"stage\":{stage:?},\"operation\":\"migrate\",\"direction\":{direction:?},\"host\":\"x\",\
          \"container\":{{\"namespace\":\"default\",\"id\":\"x\",\"names\":[],\"pid\":1}}}}"
    )
}
